//go:build cgo && turbojpeg

#include "native.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#if !defined(LIBJPEG_TURBO_VERSION_NUMBER) || LIBJPEG_TURBO_VERSION_NUMBER < 2001000
#error "jpeglib.h is not that of libjpeg-turbo 2.1 or later: build without the tag turbojpeg, or run jobs/setup/libjpeg.sh"
#endif
#if BITS_IN_JSAMPLE != 8
#error "jpeglib.h is configured for samples of other than 8 bits: build without the tag turbojpeg"
#endif

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

// The plain C of the inverse DCT wraps where the SIMD saturates: damaged blocks
// come out otherwise.
#ifdef WITH_SIMD
const char *version(void) { return TEXT(LIBJPEG_TURBO_VERSION); }
#else
const char *version(void) { return TEXT(LIBJPEG_TURBO_VERSION) " without SIMD"; }
#endif

// decoder is one file's. It is not kept for the next: libjpeg would decode a file
// that lacks its tables with those of the file before.
typedef struct {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
    int scans;
    int kind;
    char *message;
} decoder;

_Static_assert(MESSAGE_LENGTH >= JMSG_LENGTH_MAX, "room for libjpeg's messages");

static int kind_of(int code) {
    switch (code) {
    case JERR_ARITH_NOTIMPL:
    case JERR_BAD_PRECISION:
    case JERR_CCIR601_NOTIMPL:
    case JERR_COMPONENT_COUNT:
    case JERR_CONVERSION_NOTIMPL:
    case JERR_FRACT_SAMPLE_NOTIMPL:
    case JERR_NOT_COMPILED:
    case JERR_SOF_UNSUPPORTED:
        return UNSUPPORTED;
    case JERR_IMAGE_TOO_BIG:
    case JERR_NO_BACKING_STORE:
    case JERR_OUT_OF_MEMORY:
    case JERR_WIDTH_OVERFLOW:
        return TOO_LARGE;
    case JERR_INPUT_EOF:
        return TRUNCATED;
    }
    return CORRUPT;
}

// on_error is libjpeg's way out of a fatal error; it must not return.
static void on_error(j_common_ptr jpeg) {
    decoder *d = jpeg->client_data;
    d->kind = kind_of(jpeg->err->msg_code);
    jpeg->err->format_message(jpeg, d->message);
    longjmp(d->failed, 1);
}

static void on_message(j_common_ptr jpeg, int level) {
    (void)jpeg;
    (void)level;
}

static void fail(decoder *d, int kind, const char *message) {
    d->kind = kind;
    snprintf(d->message, MESSAGE_LENGTH, "%s", message);
    longjmp(d->failed, 1);
}

// on_progress is called for every row of coding units of every scan. The work
// of a scan is that of the whole image even if it holds a few bytes.
static void on_progress(j_common_ptr jpeg) {
    decoder *d = jpeg->client_data;
    if (d->jpeg.input_scan_number > d->scans)
        fail(d, TOO_LARGE, "too many scans");
}

static void no_source(j_decompress_ptr jpeg) { (void)jpeg; }

// libjpeg's own source in memory would go on with an end of image made up.
static boolean no_more(j_decompress_ptr jpeg) {
    fail(jpeg->client_data, TRUNCATED, "the data end before the image");
    return FALSE;
}

static void skip(j_decompress_ptr jpeg, long n) {
    if (n <= 0)
        return;
    if ((size_t)n > jpeg->src->bytes_in_buffer)
        no_more(jpeg);
    jpeg->src->next_input_byte += n;
    jpeg->src->bytes_in_buffer -= n;
}

// cmyk_to_rgb is Pillow's: the samples are taken to be inverted, and
// (255 − k) − c·(255 − k)/255 with the product rounded.
static void cmyk_to_rgb(const unsigned char *in, unsigned char *out, size_t n) {
    for (; n > 0; n--, in += 4, out += 3) {
        int white = in[3];
        for (int c = 0; c < 3; c++) {
            int t = (255 - in[c]) * white + 128;
            int v = white - ((t >> 8) + t >> 8);
            out[c] = v < 0 ? 0 : v;
        }
    }
}

// margin is how many columns beside the window are decoded with it: fancy
// upsampling takes the edge of what is decoded for the edge of the image, which
// reaches one chroma sample, and a sample covers four pixels at most.
enum { margin = 4 };

// incomplete tells whether a progressive file lacks the last bits of some
// coefficient. libjpeg then smooths from block to block, which crosses the edges
// of windows.
static int incomplete(j_decompress_ptr jpeg) {
    if (!jpeg->progressive_mode)
        return 0;
    for (int c = 0; c < jpeg->num_components; c++)
        for (int k = 0; k < DCTSIZE2; k++)
            if (jpeg->coef_bits[c][k] != 0)
                return 1;
    return 0;
}

static void decode_or_fail(decoder *d, request r, unsigned char *out, int out_width, int out_height) {
    j_decompress_ptr jpeg = &d->jpeg;
    jpeg_read_header(jpeg, TRUE);
    if (jpeg->image_width != (JDIMENSION)r.width || jpeg->image_height != (JDIMENSION)r.height)
        fail(d, CORRUPT, "more than one frame header");
    int four = jpeg->num_components == 4;
    jpeg->out_color_space = four ? JCS_CMYK : JCS_RGB;
    jpeg->scale_num = r.eighths;
    jpeg->scale_denom = 8;
    jpeg_start_decompress(jpeg);
    if (jpeg->output_width != (JDIMENSION)out_width || jpeg->output_height != (JDIMENSION)out_height)
        fail(d, CORRUPT, "a size that does not follow from the header's");

    if (incomplete(jpeg)) {
        r.left = r.top = 0;
        r.right = out_width;
        r.bottom = out_height;
    }
    JDIMENSION left = r.left > margin ? r.left - margin : 0;
    JDIMENSION right = r.right < out_width - margin ? r.right + margin : out_width;
    // libjpeg-turbo before 3.0 crops reduced images wrongly where a component has
    // four samples to another's one: these are decoded in full width.
    if (r.eighths != 8 && (jpeg->max_h_samp_factor > 2 || jpeg->max_v_samp_factor > 2)) {
        left = 0;
        right = out_width;
    }
    if (left > 0 || right < (JDIMENSION)out_width) {
        JDIMENSION width = right - left;
        jpeg_crop_scanline(jpeg, &left, &width);
        if (left + jpeg->output_width > (JDIMENSION)out_width)
            fail(d, CORRUPT, "a window wider than the image");
    }
    JSAMPROW inks = NULL;
    if (four)
        inks = jpeg->mem->alloc_large((j_common_ptr)jpeg, JPOOL_IMAGE, (size_t)4 * out_width);
    if (r.top > 0)
        jpeg_skip_scanlines(jpeg, r.top);
    while (jpeg->output_scanline < (JDIMENSION)r.bottom) {
        JSAMPROW to = out + 3 * ((size_t)out_width * jpeg->output_scanline + left);
        jpeg_read_scanlines(jpeg, four ? &inks : &to, 1);
        if (four)
            cmyk_to_rgb(inks, to, jpeg->output_width);
    }
    if (jpeg->output_scanline == (JDIMENSION)out_height)
        jpeg_finish_decompress(jpeg);
}

// attempt is a function of its own because setjmp leaves its caller's locals
// undefined; those of decode are safe.
static void attempt(decoder *d, request r, unsigned char *out, int out_width, int out_height) {
    if (setjmp(d->failed))
        return;
    jpeg_create_decompress(&d->jpeg);
    d->jpeg.src = &d->source;
    d->jpeg.progress = &d->progress;
    decode_or_fail(d, r, out, out_width, out_height);
}

int decode(const unsigned char *data, size_t n, request r, unsigned char *out, int out_width, int out_height, char *message) {
    decoder d = {
        .source = {
            .next_input_byte = data,
            .bytes_in_buffer = n,
            .init_source = no_source,
            .fill_input_buffer = no_more,
            .skip_input_data = skip,
            .resync_to_restart = jpeg_resync_to_restart,
            .term_source = no_source,
        },
        .progress.progress_monitor = on_progress,
        .scans = r.scans,
        .message = message,
    };
    d.jpeg.err = jpeg_std_error(&d.errors);
    d.errors.error_exit = on_error;
    d.errors.emit_message = on_message;
    d.jpeg.client_data = &d;
    attempt(&d, r, out, out_width, out_height);
    jpeg_destroy_decompress(&d.jpeg);
    return d.kind;
}
