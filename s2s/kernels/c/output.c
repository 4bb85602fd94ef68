/* The output layer: losses, the largest numbers, and a weight turned round. */

#include "common.h"

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
