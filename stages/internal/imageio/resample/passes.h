// The two passes on the vectors of the file that includes this one. Both first
// arrange the samples in cells, the samples of a group that a lane multiplies at
// once, with LANES neighbours across the filtered direction side by side, and
// then run the same sums over them:
//
//   - across takes LANES rows at a time. cells[group][channel][row]: the samples
//     are those of a pixel's neighbours in its row.
//   - down takes STRIP bytes of all rows at a time. cells[group][byte]: the
//     samples are those of GROUP rows.
//
// A sum is exact modulo 2³², and so is splitting the coefficients in digits,
// whatever the partial sums do: it is Pillow's sum.
#define LANES (4 * QUARTERS)
#define STRIP ((int64_t)sizeof(V)) // four vectors of cells
#define HALF (1 << (PRECISION - 1))
#define UNROLL _Pragma("GCC unroll 4")

// sums_of returns n scaled sums over groups whose cells are step bytes apart.
OP void sums_of(const uint8_t *cells, int64_t step, int64_t groups, const int32_t *digits, int n, V *out) {
	V sum[4][DIGITS];
	UNROLL for (int j = 0; j < n; j++) {
		sum[j][0] = v_set(HALF);
		UNROLL for (int d = 1; d < DIGITS; d++) sum[j][d] = v_set(0);
	}
	UNROLL for (int64_t g = 0; g < groups; g++) {
		UNROLL for (int j = 0; j < n; j++) {
			V c = v_load(cells + g * step + j * sizeof(V));
			UNROLL for (int d = 0; d < DIGITS; d++) sum[j][d] = v_dot(sum[j][d], c, v_set(digits[g * DIGITS + d]));
		}
	}
	UNROLL for (int j = 0; j < n; j++) {
		V a = sum[j][DIGITS - 1];
		UNROLL for (int d = DIGITS - 2; d >= 0; d--) a = v_add(v_raise(a), sum[j][d]);
		out[j] = v_descale(a);
	}
}

// sums is sums_of, without a loop for one or two groups. More of these were
// slower.
OP void sums(const uint8_t *cells, int64_t step, int64_t groups, const int32_t *digits, int n, V *out) {
	if (groups == 1)
		sums_of(cells, step, 1, digits, n, out);
	else if (groups == 2)
		sums_of(cells, step, 2, digits, n, out);
	else
		sums_of(cells, step, groups, digits, n, out);
}

// transpose turns the 4 × 4 words of each quarter.
OP void transpose(V *a) {
	V p = v_low32(a[0], a[1]), q = v_high32(a[0], a[1]);
	V r = v_low32(a[2], a[3]), s = v_high32(a[2], a[3]);
	a[0] = v_low64(p, r);
	a[1] = v_high64(p, r);
	a[2] = v_low64(q, s);
	a[3] = v_high64(q, s);
}

// Z is the number of no byte: a shuffle gives zero.
#define Z 0x80

// apart takes four pixels to a cell of each channel, by group of GROUP pixels.
static const uint8_t apart[4 / GROUP][16] = {
#if GROUP == 4
	{0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, Z, Z, Z, Z},
#elif GROUP == 2
	{0, Z, 3, Z, 1, Z, 4, Z, 2, Z, 5, Z, Z, Z, Z, Z},
	{6, Z, 9, Z, 7, Z, 10, Z, 8, Z, 11, Z, Z, Z, Z, Z},
#else
	{0, Z, Z, Z, 1, Z, Z, Z, 2, Z, Z, Z, Z, Z, Z, Z},
	{3, Z, Z, Z, 4, Z, Z, Z, 5, Z, Z, Z, Z, Z, Z, Z},
	{6, Z, Z, Z, 7, Z, Z, Z, 8, Z, Z, Z, Z, Z, Z, Z},
	{9, Z, Z, Z, 10, Z, Z, Z, 11, Z, Z, Z, Z, Z, Z, Z},
#endif
};

// together takes four rows of each channel to four pixels with a byte of
// padding, dense four such pixels to what they are in memory.
static const uint8_t together[16] = {0, 4, 8, Z, 1, 5, 9, Z, 2, 6, 10, Z, 3, 7, 11, Z};
static const uint8_t dense[16] = {0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, Z, Z, Z, Z};

// four_columns writes the cells of the four columns that begin at byte at of
// LANES rows.
OP void four_columns(const uint8_t *const *row, int64_t at, uint8_t *cells) {
	V pieces[4];
	UNROLL for (int k = 0; k < 4; k++) pieces[k] = v_gather(row + k, at);
	UNROLL for (int s = 0; s < 4 / GROUP; s++) {
		V a[4];
		UNROLL for (int k = 0; k < 4; k++) a[k] = v_shuffle(pieces[k], apart[s]);
		transpose(a);
		UNROLL for (int c = 0; c < 3; c++) v_store(cells + (3 * s + c) * sizeof(V), a[c]);
	}
}

#define ACROSS_GROUP (3 * (int64_t)sizeof(V)) // bytes of cells

static void across(table t, image_rows p, int64_t rows, uint8_t *cells) {
	for (int64_t y = 0; y < rows; y += LANES) {
		const uint8_t *in[LANES], *tail[LANES];
		uint8_t *out[LANES], *last[LANES], some[LANES][16];
		for (int i = 0; i < LANES; i++) { // the last row again where there are no more
			int64_t r = y + i < rows ? y + i : rows - 1;
			in[i] = p.in + r * p.in_pitch;
			out[i] = p.out + r * p.out_pitch;
			tail[i] = last[i] = some[i];
		}
		uint8_t *to = cells;
		int64_t bytes = 3 * t.span, at = 0;
		for (; at + 16 <= bytes; at += 12, to += 4 / GROUP * ACROSS_GROUP) four_columns(in, at, to);
		for (; at < bytes; at += 12, to += 4 / GROUP * ACROSS_GROUP) {
			int64_t n = bytes - at < 12 ? bytes - at : 12;
			memset(some, 0, sizeof some);
			for (int i = 0; i < LANES; i++) memcpy(some[i], in[i] + at, n);
			four_columns(tail, 0, to);
		}
		for (int64_t x = 0; x < t.n; x += 4) {
			V pixels[4];
			int64_t n = t.n - x < 4 ? t.n - x : 4;
			for (int64_t i = 0; i < 4; i++) {
				int64_t o = x + (i < n ? i : n - 1);
				V rgb[3];
				sums(cells + t.group[o] * ACROSS_GROUP, ACROSS_GROUP, t.groups, t.digits + o * t.groups * DIGITS, 3, rgb);
				pixels[i] = v_shuffle(v_clip(rgb[0], rgb[1], rgb[2], v_set(0)), together);
			}
			transpose(pixels);
			// Storing 16 bytes for 12 spoils some of the next, which follow.
			int whole = x + 6 <= t.n;
			UNROLL for (int k = 0; k < 4; k++) {
				V a = v_shuffle(pixels[k], dense);
				if (whole)
					v_scatter(out + k, 3 * x, a);
				else
					v_scatter(last + k, 0, a);
			}
			if (!whole)
				for (int i = 0; i < LANES; i++) memcpy(out[i] + 3 * x, some[i], 3 * n);
		}
	}
}

#define DOWN_GROUP (4 * (int64_t)sizeof(V))

// strip is down for n bytes of each row, which are STRIP if whole.
OP void strip(const table *t, const uint8_t *in, int64_t in_pitch, uint8_t *out, int64_t out_pitch, int64_t n, int whole, uint8_t *cells) {
	uint8_t *to = cells;
	for (int64_t y = 0; y < t->span; y += GROUP, to += DOWN_GROUP) {
		V rows[GROUP], a[4];
		UNROLL for (int i = 0; i < GROUP; i++) {
			const uint8_t *row = in + (y + i < t->span ? y + i : t->span - 1) * in_pitch;
			rows[i] = whole ? v_load(row) : v_load_n(row, n);
		}
		v_interleave(rows, a);
		UNROLL for (int j = 0; j < 4; j++) v_store(to + j * sizeof(V), a[j]);
	}
	for (int64_t y = 0; y < t->n; y++) {
		V a[4];
		sums(cells + t->group[y] * DOWN_GROUP, DOWN_GROUP, t->groups, t->digits + y * t->groups * DIGITS, 4, a);
		V row = v_clip(a[0], a[1], a[2], a[3]);
		if (whole)
			v_store(out + y * out_pitch, row);
		else
			v_store_n(out + y * out_pitch, n, row);
	}
}

static void down(table t, image_rows p, int64_t bytes, uint8_t *cells) {
	int64_t x = 0;
	for (; x + STRIP <= bytes; x += STRIP) strip(&t, p.in + x, p.in_pitch, p.out + x, p.out_pitch, STRIP, 1, cells);
	if (x < bytes)
		strip(&t, p.in + x, p.in_pitch, p.out + x, p.out_pitch, bytes - x, 0, cells);
}

const native_twin TWIN(resample) = {
	.name = TWIN_NAME,
	.size = GROUP,
	.count = DIGITS,
	.across_bytes = ACROSS_GROUP / GROUP,
	.down_bytes = DOWN_GROUP / GROUP,
	.across = across,
	.down = down,
};

#if defined __clang__ && !defined __aarch64__
#pragma clang attribute pop
#endif
