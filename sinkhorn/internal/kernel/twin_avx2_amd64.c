//go:build cgo && !portable

#include <math.h>
#include "twin.h"
#include "ops_avx2.h"
#include "block.h"
