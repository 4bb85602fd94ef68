/* Attention, from energies or keys to contexts. */

#include "common.h"

/* Softmax of a row of energies in place, among the places that are real (null: all); zeros where there is none. */
static void softmax(float *weights, const uint8_t *real, count length)
{
    float highest = -INFINITY, total = 0.0f;
    if (real) {
#pragma omp simd
        for (count s = 0; s < length; s++) weights[s] = real[s] ? weights[s] : -INFINITY;
    }
#pragma omp simd reduction(max : highest)
    for (count s = 0; s < length; s++) highest = weights[s] > highest ? weights[s] : highest;
    const float base = highest == -INFINITY ? 0.0f : highest;
#pragma omp simd reduction(+ : total)
    for (count s = 0; s < length; s++) {
        const float found = exponential(weights[s] - base);
        weights[s] = weights[s] == -INFINITY ? 0.0f : found;
        total += weights[s];
    }
    const float share = total > 0.0f || total != total ? 1.0f / total : 0.0f;
    for (count s = 0; s < length; s++) weights[s] *= share;
}

/* Energies (rows, length) to weights; the same mask (length) for each `sharing` rows that follow each other. */
void softmax_forward(const float *energies, const uint8_t *mask, float *weights, count rows, count length, count sharing,
                     int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * length > WORTH_A_THREAD)
    for (count row = 0; row < rows; row++) {
        memcpy(weights + row * length, energies + row * length, length * sizeof *weights);
        softmax(weights + row * length, mask + row / sharing * length, length);
    }
}

void softmax_backward(const float *weights, const float *d_weights, float *d_energies, count rows, count length,
                      int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * length > WORTH_A_THREAD)
    for (count row = 0; row < rows; row++) {
        const float *w = weights + row * length, *d_w = d_weights + row * length;
        float *d_e = d_energies + row * length, mean = 0.0f;
#pragma omp simd reduction(+ : mean)
        for (count s = 0; s < length; s++) mean += w[s] * d_w[s];
#pragma omp simd
        for (count s = 0; s < length; s++) d_e[s] = w[s] * (d_w[s] - mean);
    }
}

/* What a tensor (batch, heads, rows, size) strides by, in numbers; its last axis is contiguous. */
typedef struct {
    count batch, head, row;
} strides;

static const float *at(const float *from, strides by, count b, count h, count row)
{
    return from + b * by.batch + h * by.head + row * by.row;
}

static float product(const float *left, const float *right, count size)
{
    float found = 0.0f;
#pragma omp simd reduction(+ : found)
    for (count i = 0; i < size; i++) found += left[i] * right[i];
    return found;
}

static void add_scaled(float *sum, float scale, const float *given, count size)
{
#pragma omp simd
    for (count i = 0; i < size; i++) sum[i] += scale * given[i];
}

/* weights (batch, heads, steps, length) = softmax(scale query . keys), context (batch, steps, heads, width) = weights
 * values. mask (batch, length), or null. */
void dot_forward(const float *query, const float *keys, const float *values, const uint8_t *mask, float *context,
                 float *weights, count q_b, count q_h, count q_t, count k_b, count k_h, count k_s, count v_b,
                 count v_h, count v_s, count batch, count heads, count steps, count length, count size, count width,
                 float scale, int threads)
{
    const strides q = {q_b, q_h, q_t}, k = {k_b, k_h, k_s}, v = {v_b, v_h, v_s};
#pragma omp parallel for num_threads(threads) if (threads > 1 && batch * heads * steps * length * size > WORTH_A_THREAD)
    for (count pair = 0; pair < batch * heads; pair++) {
        const count b = pair / heads, h = pair % heads;
        const uint8_t *real = mask ? mask + b * length : 0;
        for (count t = 0; t < steps; t++) {
            const float *asked = at(query, q, b, h, t);
            float *w = weights + (pair * steps + t) * length, *c = context + ((b * steps + t) * heads + h) * width;
            for (count s = 0; s < length; s++)
                w[s] = !real || real[s] ? scale * product(asked, at(keys, k, b, h, s), size) : 0.0f;
            softmax(w, real, length);
            memset(c, 0, width * sizeof *c);
            for (count s = 0; s < length; s++)
                if (!real || real[s]) add_scaled(c, w[s], at(values, v, b, h, s), width);
        }
    }
}

/* d_weights may be null. d_energies (batch, heads, steps, length): of query . keys; d_query (batch, steps, heads, size). */
void dot_backward(const float *keys, const float *values, const uint8_t *mask, const float *weights,
                  const float *d_context, const float *d_weights, float *d_energies, float *d_query, count k_b,
                  count k_h, count k_s, count v_b, count v_h, count v_s, count batch, count heads, count steps,
                  count length, count size, count width, float scale, int threads)
{
    const strides k = {k_b, k_h, k_s}, v = {v_b, v_h, v_s};
#pragma omp parallel for num_threads(threads) if (threads > 1 && batch * heads * steps * length * size > WORTH_A_THREAD)
    for (count pair = 0; pair < batch * heads; pair++) {
        const count b = pair / heads, h = pair % heads;
        const uint8_t *real = mask ? mask + b * length : 0;
        for (count t = 0; t < steps; t++) {
            const count row = (pair * steps + t) * length, own = (b * steps + t) * heads + h;
            const float *w = weights + row, *d_c = d_context + own * width;
            float *d_e = d_energies + row, *d_q = d_query + own * size, mean = 0.0f;
            for (count s = 0; s < length; s++) {
                d_e[s] = d_weights ? d_weights[row + s] : 0.0f;
                if (!real || real[s]) d_e[s] += product(at(values, v, b, h, s), d_c, width);
                mean += w[s] * d_e[s];
            }
            memset(d_q, 0, size * sizeof *d_q);
            for (count s = 0; s < length; s++) {
                d_e[s] = scale * w[s] * (d_e[s] - mean);
                if (!real || real[s]) add_scaled(d_q, d_e[s], at(keys, k, b, h, s), size);
            }
        }
    }
}

/* ---- Many queries, by small matrix products, of what has been laid out in rows of whole tiles. */

#ifdef __AVX512F__
enum { LANES = 16 };
#else
enum { LANES = 8 };
#endif
enum { TILE = 2 * LANES };
typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float))));

static count padded(count size) { return (size + TILE - 1) / TILE * TILE; }

/* (rows, size) to (rows, padded(size)), with zeros after them. */
static void lay(float *to, const float *from, count stride, count rows, count size)
{
    const count wide = padded(size);
    for (count row = 0; row < rows; row++, to += wide) {
        memcpy(to, from + row * stride, size * sizeof *to);
        memset(to + size, 0, (wide - size) * sizeof *to);
    }
}

/* (rows, size) to (size, padded(rows)), turned round. */
static void lay_turned(float *to, const float *from, count stride, count rows, count size)
{
    const count wide = padded(rows);
    for (count i = 0; i < size; i++, to += wide) {
        for (count row = 0; row < rows; row++) to[row] = from[row * stride + i];
        memset(to + rows, 0, (wide - rows) * sizeof *to);
    }
}

/* out (rows, size) = left (rows, inner), which lies `down` from row to row and `across` from one to the next, times what
 * was laid out of right (inner, size). */
static void multiply(float *out, count stride, const float *left, count down, count across, const float *right, count rows,
                     count size, count inner)
{
    const count wide = padded(size);
    for (count first = 0; first < size; first += TILE) {
        const count kept = size - first < TILE ? size - first : TILE;
        for (count top = 0; top < rows; top += 4) {
            const float *a[4], *b = right + first; /* rows beyond the last one are the last one */
            for (count r = 0; r < 4; r++) a[r] = left + (top + r < rows ? top + r : rows - 1) * down;
            lanes s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, t0 = {0}, t1 = {0}, t2 = {0}, t3 = {0};
            for (count i = 0; i < inner; i++, b += wide) {
                const lanes x = *(const lanes *)b, y = *(const lanes *)(b + LANES);
                const count at = i * across;
                s0 += a[0][at] * x, t0 += a[0][at] * y;
                s1 += a[1][at] * x, t1 += a[1][at] * y;
                s2 += a[2][at] * x, t2 += a[2][at] * y;
                s3 += a[3][at] * x, t3 += a[3][at] * y;
            }
            const lanes sums[4][2] = {{s0, t0}, {s1, t1}, {s2, t2}, {s3, t3}};
            for (count r = 0; r < 4 && top + r < rows; r++)
                memcpy(out + (top + r) * stride + first, sums[r], kept * sizeof *out);
        }
    }
}

/* Numbers of room that a part needs for `sequence_forward` or `sequence_backward`. */
count sequence_room(count steps, count length, count size, count width)
{
    const count most = steps > length ? steps : length, wider = padded(size > width ? size : width);
    const count wide = padded(length), turned = (size > width ? size : width) * wide;
    return wide + steps * wide + (turned > most * wider ? turned : most * wider);
}

/* As `dot_forward`. causal: the last queries are the last keys, and see none that come after their own. */
void sequence_forward(const float *query, const float *keys, const float *values, const uint8_t *mask, float *context,
                      float *weights, float *rooms, count q_b, count q_h, count q_t, count k_b, count k_h, count k_s,
                      count v_b, count v_h, count v_s, count batch, count heads, count steps, count length, count size,
                      count width, count causal, float scale, int threads)
{
    const strides q = {q_b, q_h, q_t}, k = {k_b, k_h, k_s}, v = {v_b, v_h, v_s};
    const count pairs = batch * heads, wide = padded(length), room = sequence_room(steps, length, size, width);
#pragma omp parallel for num_threads(threads) if (threads > 1 && pairs * steps * length * size > WORTH_A_THREAD)
    for (count part = 0; part < PARTS; part++) {
        float *hidden = rooms + part * room, *energies = hidden + wide, *laid = energies + steps * wide;
        for (count pair = part * pairs / PARTS; pair < (part + 1) * pairs / PARTS; pair++) {
            const count b = pair / heads, h = pair % heads;
            for (count s = 0; s < wide; s++) hidden[s] = s >= length || (mask && !mask[b * length + s]);
            lay_turned(laid, at(keys, k, b, h, 0), k.row, length, size);
            multiply(energies, wide, at(query, q, b, h, 0), q.row, 1, laid, steps, wide, size);
            for (count t = 0; t < steps; t++) {
                float *e = energies + t * wide;
                const count seen = causal ? length - steps + t + 1 : length;
#pragma omp simd
                for (count s = 0; s < wide; s++) e[s] = hidden[s] != 0.0f ? -INFINITY : scale * e[s];
                for (count s = seen; s < length; s++) e[s] = -INFINITY;
                softmax(e, 0, wide);
                memcpy(weights + (pair * steps + t) * length, e, length * sizeof *e);
            }
            lay(laid, at(values, v, b, h, 0), v.row, length, width);
            multiply(context + (b * steps * heads + h) * width, heads * width, energies, wide, 1, laid, steps, width,
                     length);
        }
    }
}

/* d_weights may be null. d_query (batch, steps, heads, size), d_keys and d_values (batch, length, heads, ...). */
void sequence_backward(const float *query, const float *keys, const float *values, const float *weights,
                       const float *d_context, const float *d_weights, float *d_query, float *d_keys, float *d_values,
                       float *rooms, count q_b, count q_h, count q_t, count k_b, count k_h, count k_s, count v_b,
                       count v_h, count v_s, count batch, count heads, count steps, count length, count size,
                       count width, float scale, int threads)
{
    const strides q = {q_b, q_h, q_t}, k = {k_b, k_h, k_s}, v = {v_b, v_h, v_s};
    const count pairs = batch * heads, wide = padded(length), room = sequence_room(steps, length, size, width);
#pragma omp parallel for num_threads(threads) if (threads > 1 && pairs * steps * length * size > WORTH_A_THREAD)
    for (count part = 0; part < PARTS; part++) {
        float *d_energies = rooms + part * room, *laid = d_energies + steps * wide;
        for (count pair = part * pairs / PARTS; pair < (part + 1) * pairs / PARTS; pair++) {
            const count b = pair / heads, h = pair % heads, first = b * steps * heads + h, key = b * length * heads + h;
            const float *w = weights + pair * steps * length, *d_c = d_context + first * width;
            lay_turned(laid, at(values, v, b, h, 0), v.row, length, width);
            multiply(d_energies, wide, d_c, heads * width, 1, laid, steps, wide, width);
            for (count t = 0; t < steps; t++) {
                const float *x = w + t * length, *d_w = d_weights ? d_weights + (pair * steps + t) * length : 0;
                float *d_e = d_energies + t * wide, mean = 0.0f;
                if (d_w) add_scaled(d_e, 1.0f, d_w, length);
#pragma omp simd reduction(+ : mean)
                for (count s = 0; s < length; s++) mean += x[s] * d_e[s];
#pragma omp simd
                for (count s = 0; s < length; s++) d_e[s] = scale * x[s] * (d_e[s] - mean);
            }
            lay(laid, at(keys, k, b, h, 0), k.row, length, size);
            multiply(d_query + first * size, heads * size, d_energies, wide, 1, laid, steps, size, length);
            lay(laid, at(query, q, b, h, 0), q.row, steps, size);
            multiply(d_keys + key * size, heads * size, d_energies, 1, wide, laid, length, size, steps);
            lay(laid, d_c, heads * width, steps, width);
            multiply(d_values + key * width, heads * width, w, 1, length, laid, length, width, steps);
        }
    }
}

/* e_s = v . tanh(q + k_s), weights = softmax(e), context = sum_s weights_s values_s. */
void additive_forward(const float *query, const float *keys, const float *vector, const uint8_t *mask,
                      const float *values, float *context, float *weights, count batch, count steps, count length,
                      count size, count width, int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count row = 0; row < batch * steps; row++) {
        const count b = row / steps;
        const uint8_t *real = mask + b * length;
        const float *q = query + row * size;
        float *w = weights + row * length, *c = context + row * width;
        for (count s = 0; s < length; s++) {
            const float *key = keys + (b * length + s) * size;
            float energy = 0.0f;
            if (real[s]) {
#pragma omp simd reduction(+ : energy)
                for (count i = 0; i < size; i++) energy += vector[i] * tangent(q[i] + key[i]);
            }
            w[s] = energy;
        }
        softmax(w, real, length);
        memset(c, 0, width * sizeof *c);
        for (count s = 0; s < length; s++) {
            const float *value = values + (b * length + s) * width, share = w[s];
            if (!real[s]) continue;
#pragma omp simd
            for (count i = 0; i < width; i++) c[i] += share * value[i];
        }
    }
}

/* d_weights may be null. d_keys is added to; d_vectors (batch, size) has a source's share in each row. */
void additive_backward(const float *query, const float *keys, const float *vector, const uint8_t *mask,
                       const float *values, const float *weights, const float *d_context, const float *d_weights,
                       float *d_energies, float *d_query, float *d_keys, float *d_vectors, count batch, count steps,
                       count length, count size, count width, int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count b = 0; b < batch; b++) {
        const uint8_t *real = mask + b * length;
        float *d_v = d_vectors + b * size;
        memset(d_v, 0, size * sizeof *d_v);
        for (count row = b * steps; row < (b + 1) * steps; row++) {
            const float *q = query + row * size, *w = weights + row * length, *d_c = d_context + row * width;
            float *d_e = d_energies + row * length, *d_q = d_query + row * size, mean = 0.0f;
            memset(d_q, 0, size * sizeof *d_q);
            for (count s = 0; s < length; s++) {
                const float *value = values + (b * length + s) * width;
                float found = d_weights ? d_weights[row * length + s] : 0.0f;
                if (!real[s]) continue;
#pragma omp simd reduction(+ : found)
                for (count i = 0; i < width; i++) found += value[i] * d_c[i];
                d_e[s] = found;
                mean += w[s] * found;
            }
            for (count s = 0; s < length; s++) {
                const float *key = keys + (b * length + s) * size;
                float *d_k = d_keys + (b * length + s) * size;
                if (!real[s]) continue;
                const float d = w[s] * (d_e[s] - mean);
#pragma omp simd
                for (count i = 0; i < size; i++) {
                    float squashed = tangent(q[i] + key[i]);
                    float inner = d * vector[i] * (1.0f - squashed * squashed);
                    d_k[i] += inner;
                    d_q[i] += inner;
                    d_v[i] += d * squashed;
                }
            }
        }
    }
}
