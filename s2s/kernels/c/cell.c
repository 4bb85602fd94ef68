/* What a step of a recurrent layer does beside its matrix products. */

#include "common.h"

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
