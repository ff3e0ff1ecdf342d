//go:build cgo && !portable

#include <math.h>
#include "twin.h"
#include "ops_neon.h"
#include "block.h"
