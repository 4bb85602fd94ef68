/* What the kernels of a CPU share. Each function of theirs is plain elsewhere, where its equations and their sources
 * stand; `s2s/kernels/cpu.py` calls it and says what it is given. Float32. Arrays are contiguous where nothing else is
 * said, rows are independent of each other, and no sum depends on the number of threads. NaN comes out where NaN goes in.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef int64_t count;

#define WORTH_A_THREAD 8192 /* numbers: below, waking the others takes longer */

enum { PARTS = 16 }; /* in which work is shared out, each with room of its own, for any number of threads */

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
