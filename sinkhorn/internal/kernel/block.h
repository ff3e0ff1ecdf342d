// Block of params.go on the vectors of the file that includes this one. It
// returns the bits of Params.row.
//
// A float32 screen finds the groups of Lanes columns that may hold an entry
// that counts; only these are evaluated in float64. A group too many changes
// no bit: its entries weigh +0.
//
// The screen is safe. Let u = 2⁻²⁴, s_k the float32 score, t_k the float64
// one, V = max |v_k|, R the largest reach (the distance below the row's
// largest score M at which an entry of a column still counts) and m = max s_k.
// Rounding λ, v_k and the fused sum to float32 gives
//
//	|s_k − t_k| ≤ E_k = u·(|λx_k| + |v_k| + |s_k|)·(1+2⁻²⁰) + 2⁻¹⁴⁹
//
// and |λx_k| ≤ |t_k| + V, so E_k ≤ 2.01u·(|t_k| + V) + 2⁻¹⁴⁸. For the entry of
// m that is at most 2.02u·(|m| + V + R), hence M ≥ m − that, likewise M ≤ m +
// that, and with |t_k| ≤ |M| + R for an entry that counts E_k is no larger
// either. So s_k ≥ t_k − E_k ≥ M − R_k − E_k ≥ m − R_k − 4.1u·(|m| + V + R).
// SLACK allows 16u, enough for rounding the threshold and the reach too. With
// |m|, V, λ and 1/λ below SCREEN_LIMIT nothing that counts overflows.
#define LANES 8
#define TILE_LANES 16
#define TILE_COLUMNS (4 * TILE_LANES)
#define CUTOFF 60.0
#define SCREEN_LIMIT 0x1p60
#define SLACK 0x1p-20

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF // GCC obeys -std=c11, see twin_native.go
#endif

// d_exp takes the steps of weights4 in exp.go for −CUTOFF ≤ d ≤ 0, where
// multiplying by 2^k adds k to the exponent. Elsewhere it returns anything.
OP D d_exp(D d) {
	const D magic = d_set(0x1.8p52);
	D s = d_add(d_mul(d, d_set(0x1.71547652b82fep+0)), magic);
	D n = d_sub(s, magic);
	D r = d_sub(d_sub(d, d_mul(n, d_set(0x1.62e42fee00000p-1))), d_mul(n, d_set(0x1.a39ef35793c76p-33)));
	D q = d_mul(r, r);
	D h = d_mul(q, q);
	D e0 = d_add(d_set(0x1.000000000000ap-1), d_mul(d_set(0x1.55555555554fap-3), r));
	D e2 = d_add(d_set(0x1.555555555087cp-5), d_mul(d_set(0x1.1111111127be5p-7), r));
	D e4 = d_add(d_set(0x1.6c16c1842a126p-10), d_mul(d_set(0x1.a01a012a57b5ep-13), r));
	D e6 = d_add(d_set(0x1.a0199a0c66196p-16), d_mul(d_set(0x1.71df255235e0ap-19), r));
	D e8 = d_add(d_set(0x1.28ad72cd4aaf9p-22), d_mul(d_set(0x1.ad7f6f0e249f8p-26), r));
	D low = d_add(e0, d_mul(e2, q));
	D high = d_mul(d_add(d_add(e4, d_mul(e6, q)), d_mul(e8, h)), h);
	D p = d_add(d_set(1), d_add(r, d_mul(q, d_add(low, high))));
	return d_scale(p, s);
}

// score returns the scores of columns k to k+7, −Inf past the row's end. Not
// whole says that the row ends among them, here and below.
OP D score(const block_args *a, const float *x, int64_t k, int whole) {
	D wide = whole ? d_widen(x + k) : d_widen_n(x + k, a->clusters - k, -INFINITY);
	return d_add(d_mul(d_set(a->lambda), wide), d_load(a->v + k));
}

// load_at and store_at access columns k to k+7 of an array that ends with the
// row.
OP D load_at(const block_args *a, const double *p, int64_t k, int whole) {
	return whole ? d_load(p + k) : d_load_n(p + k, a->clusters - k);
}

OP void store_at(const block_args *a, double *p, int64_t k, D value, int whole) {
	if (whole)
		d_store(p + k, value);
	else
		d_store_n(p + k, a->clusters - k, value);
}

// x_vector returns the entries of columns k to k+15, other past the end.
OP S x_vector(const float *x, int64_t k, int64_t n, S other) {
	return n >= TILE_LANES ? s_load(x + k) : n > 0 ? s_load_n(x + k, n, other) : other;
}

typedef struct {
	S top, low, high;
	Ordered ordered;
} sweep;

// tile adds the columns from k on, n of them if fewer than a tile's, and
// returns their largest scores by lane.
OP S tile(sweep *w, const block_args *a, const float *x, int64_t k, int64_t n, S lambda, int range) {
	const S none = s_set(-INFINITY);
	S x0 = x_vector(x, k, n, none), x1 = x_vector(x, k + 16, n - 16, none);
	S x2 = x_vector(x, k + 32, n - 32, none), x3 = x_vector(x, k + 48, n - 48, none);
	S s0 = s_fma(lambda, x0, s_load(a->v32 + k)), s1 = s_fma(lambda, x1, s_load(a->v32 + k + 16));
	S s2 = s_fma(lambda, x2, s_load(a->v32 + k + 32)), s3 = s_fma(lambda, x3, s_load(a->v32 + k + 48));
	w->ordered = ordered_and(ordered_and(w->ordered, s0, s1), s2, s3);
	S top = s_max(s_max(s0, s1), s_max(s2, s3));
	w->top = s_max(w->top, top);
	if (range) {
		w->high = s_max(w->high, s_max(s_max(x0, x1), s_max(x2, x3)));
		if (n < TILE_COLUMNS) {
			const S far = s_set(INFINITY);
			x0 = x_vector(x, k, n, far), x1 = x_vector(x, k + 16, n - 16, far);
			x2 = x_vector(x, k + 32, n - 32, far), x3 = x_vector(x, k + 48, n - 48, far);
		}
		w->low = s_min(w->low, s_min(s_min(x0, x1), s_min(x2, x3)));
	}
	return top;
}

// screen_row fills a->tiles and returns what it saw of the whole row.
OP sweep screen_row(const block_args *a, const float *x, int range) {
	const S lambda = s_set((float)a->lambda);
	sweep w = {s_set(-INFINITY), s_set(INFINITY), s_set(-INFINITY), ordered_all()};
	float *out = a->tiles;
	int64_t k = 0;
	for (; k + TILE_COLUMNS <= a->clusters; k += TILE_COLUMNS, out += TILE_LANES)
		s_store(out, tile(&w, a, x, k, TILE_COLUMNS, lambda, range));
	if (k < a->clusters)
		s_store(out, tile(&w, a, x, k, a->clusters - k, lambda, range));
	return w;
}

// choice is which groups of a row are evaluated, and the row's largest score.
typedef struct {
	double max;
	int64_t n;
	int dense; // all of them; else those in a->groups
} choice;

// exact_tile returns the largest scores in the tile at column k.
OP D exact_tile(const block_args *a, const float *x, int64_t k) {
	D top = d_set(-INFINITY);
	for (int64_t end = k + TILE_COLUMNS; k < end && k < a->clusters; k += LANES)
		top = d_max(top, score(a, x, k, k + LANES <= a->clusters));
	return top;
}

// choose picks the groups that may hold an entry that counts: one with a
// float32 score of at least floor or, with lists, floor less the column's
// reach. Scores of at least near may be the row's largest.
OP choice choose(const block_args *a, const float *x, float near, float floor, int lists) {
	const S lambda = s_set((float)a->lambda), high = s_set(near), least = s_set(floor);
	int64_t tiles = (a->clusters + TILE_COLUMNS - 1) / TILE_COLUMNS, hits = 0, lanes = 0, n = 0;
	for (int64_t i = 0; i < tiles; i++) {
		S t = s_load(a->tiles + i * TILE_LANES);
		if (lists)
			t = s_add(t, s_load(a->bounds + i * TILE_LANES));
		unsigned m = s_ge(t, least);
		a->hits[hits] = i;
		hits += m != 0;
		lanes += __builtin_popcount(m);
	}
	int dense = 4 * lanes >= 3 * TILE_LANES * tiles;
	D top = d_set(-INFINITY);
	for (int64_t h = 0; h < hits; h++) {
		int64_t k = (int64_t)a->hits[h] * TILE_COLUMNS;
		if (s_ge(s_load(a->tiles + k / 4), high))
			top = d_max(top, exact_tile(a, x, k));
		if (dense)
			continue;
		uint64_t m = 0;
		for (int j = 0; j < TILE_COLUMNS; j += TILE_LANES) {
			S s = s_fma(lambda, x_vector(x, k + j, a->clusters - k - j, s_set(-INFINITY)), s_load(a->v32 + k + j));
			if (lists)
				s = s_add(s, s_load(a->reach + k + j));
			m |= s_ge(s, least) << j;
		}
		n += append(a->groups + n, k / LANES, any8(m));
	}
	double max = d_largest(top) + 0.0; // no −0
	if (dense)
		return (choice){max, (a->clusters + LANES - 1) / LANES, 1};
	return (choice){max, n, 0};
}

// column returns the first column of the chosen group g.
OP int64_t column(const block_args *a, int64_t g, int dense) { return dense ? g * LANES : (int64_t)a->groups[g] * LANES; }

// whole returns how many of the chosen groups are whole: all or all but one.
OP int64_t whole(const block_args *a, choice c, int dense) {
	return c.n - (c.n > 0 && column(a, c.n - 1, dense) + LANES > a->clusters);
}

// add_mass adds a group's shares to mass.
OP void add_mass(const block_args *a, int64_t g, int64_t k, double scale, int whole) {
	D share = d_mul(d_set(scale), d_load(a->weights + g * LANES));
	store_at(a, a->mass, k, d_add(load_at(a, a->mass, k, whole), share), whole);
}

// add_masses adds a row's shares to mass.
OP void add_masses(const block_args *a, choice c, int dense, double scale) {
	int64_t n = whole(a, c, dense), g = 0;
	for (; g < n; g++)
		add_mass(a, g, column(a, g, dense), scale, 1);
	if (g < c.n)
		add_mass(a, g, column(a, g, dense), scale, 0);
}

// settle adds those of a row of which every group was weighed.
static void settle(const block_args *a, double *pending) {
	if (*pending != 0)
		add_masses(a, (choice){0, (a->clusters + LANES - 1) / LANES, 1}, 1, *pending);
	*pending = 0;
}

// total is what weigh saw of a row.
typedef struct {
	D lanes;
	int64_t listed;
} total;

// weigh writes the weights of the chosen group g and, with lists, which of its
// entries are listed. Where pending is not 0, a->weights holds those of the row
// before, every group of them, still to be added to mass times pending: that
// memory traffic hides behind the exponentials.
OP total weigh(const block_args *a, total t, const float *x, double max, int64_t g, int64_t k, double pending, int lists, int whole) {
	D d = d_sub(score(a, x, k, whole), d_set(max));
	D w = d_keep(d_ge(d, d_set(-CUTOFF)), d_exp(d));
	if (pending != 0)
		add_mass(a, g, k, pending, whole);
	d_store(a->weights + g * LANES, w);
	t.lanes = d_add(t.lanes, w);
	if (lists) {
		a->listed[g] = m_bits(d_ge(d, d_sub(d_set(0), load_at(a, a->margin, k, whole))));
		t.listed += __builtin_popcount(a->listed[g]);
	}
	return t;
}

OP total weigh_all(const block_args *a, const float *x, choice c, int dense, double pending, int lists) {
	total t = {d_set(0), 0};
	int64_t n = whole(a, c, dense), g = 0;
	for (; g < n; g++)
		t = weigh(a, t, x, c.max, g, column(a, g, dense), pending, lists, 1);
	if (g < c.n)
		t = weigh(a, t, x, c.max, g, column(a, g, dense), pending, lists, 0);
	return t;
}

// sum adds lanes in the order of doc.go.
OP double sum(D lanes) {
	double l[LANES];
	d_store(l, lanes);
	return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
}

// best_two is bestTwo of portable.go on the chosen groups.
OP void best_two(const block_args *a, const float *x, choice c, int32_t *best, double *second) {
	D other = d_set(-INFINITY), top = d_set(c.max);
	*best = -1;
	for (int64_t g = 0; g < c.n; g++) {
		int64_t k = column(a, g, c.dense);
		D t = score(a, x, k, k + LANES <= a->clusters);
		unsigned m = *best < 0 ? m_bits(d_ge(t, top)) : 0;
		if (m) {
			*best = k + __builtin_ctz(m);
			t = d_where(m_of(m & -m), d_set(-INFINITY), t);
		}
		other = d_max(other, t);
	}
	double o = d_largest(other) + 0.0;
	*second = o - c.max < -CUTOFF ? -INFINITY : o;
}

// list appends a row's listed entries and adds the others' shares to dropped.
OP void list(const block_args *a, const float *x, choice c, double scale, int64_t *entries) {
	for (int64_t g = 0; g < c.n; g++) {
		int64_t k = column(a, g, c.dense);
		int whole = k + LANES <= a->clusters;
		unsigned m = a->listed[g];
		D share = d_keep(m_of(~m & 0xff), d_mul(d_set(scale), d_load(a->weights + g * LANES)));
		store_at(a, a->dropped, k, d_add(load_at(a, a->dropped, k, whole), share), whole);
		for (; m; m &= m - 1, ++*entries) {
			int64_t at = k + __builtin_ctz(m);
			a->cluster[*entries] = at;
			a->x[*entries] = x[at];
		}
	}
}

// row evaluates row i; 0 leaves it to the portable code.
OP int row(const block_args *a, int64_t i, const float *x, double reach, int lists, int64_t *entries, double *pending) {
	sweep w = a->low ? screen_row(a, x, 1) : screen_row(a, x, 0);
	float top = s_largest(w.top);
	if (!is_ordered(w.ordered) || !(top >= -SCREEN_LIMIT && top <= SCREEN_LIMIT))
		return 0;
	double slack = (__builtin_fabs(top) + a->largest + reach) * SLACK;
	choice c = choose(a, x, (float)(top - slack), (float)(top - slack - (lists ? 0 : CUTOFF)), lists);
	total t;
	if (!c.dense) {
		settle(a, pending);
		t = weigh_all(a, x, c, 0, 0, lists);
	} else if (*pending != 0) {
		t = weigh_all(a, x, c, 1, *pending, lists);
	} else {
		t = weigh_all(a, x, c, 1, 0, lists);
	}
	*pending = 0;
	if (lists && *entries + t.listed > a->room) // the portable code grows the list
		return 0;
	double total = sum(t.lanes), scale = 1 / total;
	if (a->mass && c.dense)
		*pending = scale;
	else if (a->mass)
		add_masses(a, c, 0, scale);
	if (lists)
		list(a, x, c, scale, entries);
	a->max[i] = c.max;
	a->sum[i] = total;
	if (a->best)
		best_two(a, x, c, &a->best[i], &a->second[i]);
	if (a->low) {
		a->low[i] = s_least(w.low) + 0.0f;
		a->high[i] = s_largest(w.high) + 0.0f;
	}
	return 1;
}

// prepare_lists sets the reach of every column, and the largest by lane of a
// tile, and returns the largest of all.
static double prepare_lists(const block_args *a) {
	D largest = d_set(CUTOFF);
	for (int64_t k = 0; k < a->clusters; k += LANES) {
		D reach = d_max(load_at(a, a->margin, k, k + LANES <= a->clusters), d_set(CUTOFF));
		largest = d_max(largest, reach);
		d_narrow(a->reach + k, reach);
	}
	for (int64_t k = 0; k < a->clusters; k += TILE_COLUMNS) {
		const float *r = a->reach + k;
		s_store(a->bounds + k / 4, s_max(s_max(s_load(r), s_load(r + 16)), s_max(s_load(r + 32), s_load(r + 48))));
	}
	return d_largest(largest);
}

static int64_t block(int64_t i, int64_t n, const float *x, const block_args *a) {
	double pending = 0;
	if (a->margin) {
		double reach = prepare_lists(a);
		int64_t first = i, entries = a->entries;
		for (; i < n && reach <= SCREEN_LIMIT && row(a, i, x + i * a->clusters, reach, 1, &entries, &pending); i++)
			a->end[i - first] = entries;
	} else {
		while (i < n && row(a, i, x + i * a->clusters, CUTOFF, 0, 0, &pending))
			i++;
	}
	settle(a, &pending);
	return i;
}

// log_sums is logSums of logsums.go. A group of columns whose scores are all
// further than CUTOFF below their columns' largest stays as it is.
static int64_t log_sums(int64_t rows, int64_t clusters, double *max, double *sum, const float *x, const double *shift, const double *v, double lambda) {
	for (int64_t i = 0; i < rows; i++, x += clusters) {
		const D down = d_set(shift ? shift[i] : 0);
		D tops = d_set(-INFINITY);
		unsigned nan = 0;
		for (int64_t k = 0; k < clusters; k += LANES) {
			int64_t rest = clusters - k;
			int whole = rest >= LANES;
			D wide = whole ? d_widen(x + k) : d_widen_n(x + k, rest, -INFINITY);
			D add = !v ? d_set(0) : whole ? d_load(v + k) : d_load_n(v + k, rest);
			D top = whole ? d_load(max + k) : d_load_n(max + k, rest);
			D t = d_sub(d_add(d_mul(d_set(lambda), wide), add), down);
			tops = d_max(tops, t);
			nan |= m_bits(d_unordered(t));
			D d = d_sub(t, top);
			M counts = d_ge(d, d_set(-CUTOFF));
			if (m_bits(counts) == 0)
				continue;
			D s = whole ? d_load(sum + k) : d_load_n(sum + k, rest);
			D away = d_negative(d);
			M up = d_gt(d, d_set(0));
			D e = d_keep(d_ge(away, d_set(-CUTOFF)), d_exp(away));
			s = d_where(up, d_add(d_mul(s, e), d_set(1)), d_add(s, e));
			top = d_where(up, t, top);
			if (whole) {
				d_store(sum + k, s);
				d_store(max + k, top);
			} else {
				d_store_n(sum + k, rest, s);
				d_store_n(max + k, rest, top);
			}
		}
		double top = d_largest(tops);
		if (nan || !(top > -INFINITY && top < INFINITY))
			return i;
	}
	return -1;
}

const native_twin TWIN(twin) = {TWIN_NAME, block, log_sums};

#if defined(__clang__) && defined(__x86_64__)
#pragma clang attribute pop
#endif
