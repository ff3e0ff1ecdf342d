//go:build cgo && !portable

#include <string.h>
#include "twin.h"
#include "ops_neon.h"
#include "passes.h"
