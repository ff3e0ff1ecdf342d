//go:build cgo && !portable

#include <string.h>
#include "twin.h"
#include "ops_avx2.h"
#include "passes.h"
