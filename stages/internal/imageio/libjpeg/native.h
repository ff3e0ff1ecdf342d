// The interface between Go and C: see native.c.
#include <stddef.h>

// A request as in Go, its window checked and within the decoded image.
typedef struct {
    int width, height, eighths, scans;
    int left, top, right, bottom;
} request;

enum { CORRUPT = 1, TRUNCATED, UNSUPPORTED, TOO_LARGE };

const char *version(void);

enum { MESSAGE_LENGTH = 200 };

// decode returns 0, or a kind of error and its message. Rows of the decoded
// image are out_width pixels of 3 bytes, without padding.
int decode(const unsigned char *data, size_t n, request r, unsigned char *out, int out_width, int out_height, char *message);
