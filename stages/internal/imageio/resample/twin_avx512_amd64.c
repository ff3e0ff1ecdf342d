//go:build cgo && !portable

#include <string.h>
#include "twin.h"
#include "ops_avx512.h"
#include "passes.h"
