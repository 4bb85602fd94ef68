/* What a step of a recurrent model does beside its matrix products, fused, in float32 on a CPU.
 *
 * Each function is plain elsewhere, where its equations and their sources stand; `s2s/kernels/cpu.py` calls it and says
 * what it is given. Arrays are contiguous, rows are independent of each other, and no sum depends on the number of threads.
 * NaN comes out where NaN goes in.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef int64_t count;

#define WORTH_A_THREAD 8192 /* numbers: below, waking the others takes longer */

/* e^x of what float32 can hold, by 2^n e^r with |r| <= log(2) / 2; a least-maximum polynomial, wrong by 3e-9 of it. */
static inline float exponential(float x)
{
    float held = x < -87.0f ? -87.0f : x; /* comparisons let NaN pass */
    held = held > 88.0f ? 88.0f : held;
    float n = rintf(held * 1.44269504f);
    float r = (held - n * 0.693359375f) + n * 2.12194440e-4f; /* log(2) in two parts, the first one exact */
    float p = 1.381446643e-3f;
    p = p * r + 8.368780463e-3f;
    p = p * r + 4.166839422e-2f;
    p = p * r + 1.666652011e-1f;
    p = p * r + 4.999999341e-1f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return (p * r * r + r + 1.0f) * power;
}

static inline float logistic(float x) { return 1.0f / (1.0f + exponential(-x)); }

static inline float tangent(float x) { return 2.0f * logistic(2.0f * x) - 1.0f; }

void tanh_forward(const float *x, float *y, count size, int threads)
{
#pragma omp parallel for simd num_threads(threads) if (threads > 1 && size > WORTH_A_THREAD)
    for (count i = 0; i < size; i++) y[i] = tangent(x[i]);
}

void tanh_backward(const float *y, const float *d_y, float *d_x, count size, int threads)
{
#pragma omp parallel for simd num_threads(threads) if (threads > 1 && size > WORTH_A_THREAD)
    for (count i = 0; i < size; i++) d_x[i] = d_y[i] * (1.0f - y[i] * y[i]);
}

/* gates (rows, 4 width) in the order i, f, g, o. */
void lstm_forward(const float *gates, const float *cell, float *activated, float *hidden, float *following, count rows,
                  count width, int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * width > WORTH_A_THREAD)
    for (count row = 0; row < rows; row++) {
        const float *gate = gates + 4 * width * row, *before = cell + width * row;
        float *kept = activated + 4 * width * row, *h = hidden + width * row, *c = following + width * row;
#pragma omp simd
        for (count u = 0; u < width; u++) {
            float i = logistic(gate[u]), f = logistic(gate[width + u]);
            float g = tangent(gate[2 * width + u]), o = logistic(gate[3 * width + u]);
            kept[u] = i, kept[width + u] = f, kept[2 * width + u] = g, kept[3 * width + u] = o;
            c[u] = f * before[u] + i * g;
            h[u] = o * tangent(c[u]);
        }
    }
}

void lstm_backward(const float *activated, const float *cell, const float *following, const float *d_hidden,
                   const float *d_following, float *d_gates, float *d_cell, count rows, count width, int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * width > WORTH_A_THREAD)
    for (count row = 0; row < rows; row++) {
        const float *kept = activated + 4 * width * row, *before = cell + width * row, *c = following + width * row;
        const float *d_h = d_hidden + width * row, *d_c = d_following + width * row;
        float *d_gate = d_gates + 4 * width * row, *d_before = d_cell + width * row;
#pragma omp simd
        for (count u = 0; u < width; u++) {
            float i = kept[u], f = kept[width + u], g = kept[2 * width + u], o = kept[3 * width + u];
            float squashed = tangent(c[u]);
            float d = d_c[u] + d_h[u] * o * (1.0f - squashed * squashed);
            d_gate[u] = d * g * i * (1.0f - i);
            d_gate[width + u] = d * before[u] * f * (1.0f - f);
            d_gate[2 * width + u] = d * i * (1.0f - g * g);
            d_gate[3 * width + u] = d_h[u] * squashed * o * (1.0f - o);
            d_before[u] = d * f;
        }
    }
}

/* Softmax of a row of energies in place, among the places that are real (null: all); zeros where there is none. */
static void softmax(float *weights, const uint8_t *real, count length)
{
    float highest = -INFINITY, total = 0.0f;
    for (count s = 0; s < length; s++)
        if ((!real || real[s]) && !(weights[s] <= highest)) highest = weights[s];
#pragma omp simd reduction(+ : total)
    for (count s = 0; s < length; s++) {
        weights[s] = !real || real[s] ? exponential(weights[s] - highest) : 0.0f;
        total += weights[s];
    }
    float share = total > 0.0f || total != total ? 1.0f / total : 0.0f;
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

/* bfloat16 is the upper half of a float32. */
static void widen(const uint16_t *from, float *to, count size)
{
#pragma omp simd
    for (count i = 0; i < size; i++) {
        uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(to + i, &bits, sizeof bits);
    }
}

/* To the nearest, among two as near the even one. */
static void narrow(const float *from, uint16_t *to, count size)
{
#pragma omp simd
    for (count i = 0; i < size; i++) {
        uint32_t bits;
        memcpy(&bits, from + i, sizeof bits);
        uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
        to[i] = (from[i] == from[i] ? rounded : bits | 0x400000) >> 16; /* rounding up must not make NaN a number */
    }
}

/* Output layer's logits without their bias, (rows, size), to losses, and with `learning` to their gradients in place.
 *
 * `stride` numbers lie from one row to the next. They are float32, or with `rounded` (PARTS, size) bfloat16, and each row
 * is taken in float32 there.
 * A target from `size` on can only be copied. log_generate and log_copied may be null: nothing is copied; counts too: each
 * row counts once. Of each row: the log of the sum of its e^logit, the log-probability of its target, and which share of
 * that is generated. d_bias (PARTS, size): the gradients' sum over rows, by parts, so that it is the same for any number
 * of threads. */
enum { PARTS = 16 };

void cross_entropy(void *logits, float *rounded, const float *bias, const int64_t *targets, const float *log_generate,
                   const float *log_copied, const float *counts, float *norms, float *log_probs, float *shares,
                   float *d_bias, count rows, count size, count stride, count learning, float smoothing, int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * size > WORTH_A_THREAD)
    for (count part = 0; part < PARTS; part++) {
        float *sum = d_bias + part * size;
        if (learning) memset(sum, 0, size * sizeof *sum);
        for (count row = part * rows / PARTS; row < (part + 1) * rows / PARTS; row++) {
            uint16_t *half = (uint16_t *)logits + row * stride;
            float *logit = rounded ? rounded + part * size : (float *)logits + row * stride;
            float highest = -INFINITY, total = 0.0f;
            if (rounded) widen(half, logit, size);
            const count target = targets[row];
            const int known = target < size;
#pragma omp simd reduction(max : highest)
            for (count v = 0; v < size; v++) {
                logit[v] += bias[v];
                highest = logit[v] > highest ? logit[v] : highest;
            }
            float log_prob = known ? logit[target] : -INFINITY, share = 1.0f;
#pragma omp simd reduction(+ : total)
            for (count v = 0; v < size; v++) {
                logit[v] = exponential(logit[v] - highest);
                total += logit[v];
            }
            norms[row] = highest + logf(total);
            log_prob -= norms[row];
            if (log_generate) {
                const float generated = log_prob + log_generate[row], copied = log_copied[row];
                const float more = generated > copied ? generated : copied;
                log_prob = more + logf(expf(generated - more) + expf(copied - more));
                share = expf(generated - log_prob);
            }
            log_probs[row] = log_prob;
            shares[row] = share;
            if (!learning) continue;
            const float often = counts ? counts[row] : 1.0f, drawn = often * (1.0f - smoothing) * share;
            const float scale = (drawn + often * smoothing) / total;
#pragma omp simd
            for (count v = 0; v < size; v++) {
                logit[v] *= scale;
                sum[v] += logit[v];
            }
            if (known) logit[target] -= drawn, sum[target] -= drawn;
            if (rounded) narrow(logit, half, size);
        }
    }
}

static void insert(float *values, int64_t *ids, count held, float value, int64_t id)
{
    for (; held > 0 && values[held - 1] < value; held--) values[held] = values[held - 1], ids[held] = ids[held - 1];
    values[held] = value, ids[held] = id;
}

/* The `width` largest numbers of each row (rows, size), largest first, and where they stand, the first one among equals.
 * A row with NaN has NaN as its first. width <= size. */
void largest(const float *rows_of, float *values, int64_t *ids, count rows, count size, count width, int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * size > WORTH_A_THREAD)
    for (count row = 0; row < rows; row++) {
        const float *x = rows_of + row * size;
        float *best = values + row * width;
        int64_t *where = ids + row * width;
        int strange = 0;
        for (count v = 0; v < width; v++) insert(best, where, v, x[v], v), strange |= x[v] != x[v];
        for (count first = width; first < size; first += 256) {
            const count past = first + 256 < size ? first + 256 : size;
            float highest = -INFINITY;
#pragma omp simd reduction(max : highest) reduction(| : strange)
            for (count v = first; v < past; v++) {
                highest = x[v] > highest ? x[v] : highest;
                strange |= x[v] != x[v];
            }
            if (!(highest > best[width - 1])) continue;
            for (count v = first; v < past; v++)
                if (x[v] > best[width - 1]) insert(best, where, width - 1, x[v], v);
        }
        if (strange) best[0] = NAN;
    }
}

/* (rows, size) to (size, rows). */
void transpose(const float *from, float *to, count rows, count size, int threads)
{
    enum { SIDE = 32 };
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * size > WORTH_A_THREAD)
    for (count left = 0; left < size; left += SIDE)
        for (count top = 0; top < rows; top += SIDE)
            for (count i = left; i < size && i < left + SIDE; i++)
                for (count j = top; j < rows && j < top + SIDE; j++) to[i * rows + j] = from[j * size + i];
}
