//go:build cgo && !portable

#include <math.h>
#include "twin.h"
#include "ops_avx512.h"
#include "block.h"
