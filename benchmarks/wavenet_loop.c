/* The loop of wavenet_stream as plain C, for softmax outputs of a WaveNet without conditions, kernel 2.
   Sizes (LAYERS, R residual, G gate, S skip channels, LEVELS) come from the compiler's command line. */

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline void add_product(float *restrict out, const float *restrict x, const float *restrict weight,
                               int inputs, int outputs) {
    for (int i = 0; i < inputs; i += 4) {
        const float *restrict w = weight + i * outputs;
        for (int j = 0; j < outputs; j++)
            out[j] += x[i] * w[j] + x[i + 1] * w[outputs + j] + x[i + 2] * w[2 * outputs + j] +
                      x[i + 3] * w[3 * outputs + j];
    }
}

static int64_t drawn(const float *logits, double uniform) {
    double probability[LEVELS], total = 0, reached = 0;
    float most = logits[0];
    for (int i = 1; i < LEVELS; i++) most = fmaxf(most, logits[i]);
    for (int i = 0; i < LEVELS; i++) total += probability[i] = exp((double)logits[i] - most);
    for (int i = 0; i < LEVELS - 1; i++)
        if ((reached += probability[i]) > uniform * total) return i;
    return LEVELS - 1;
}

void advance(const float *first, const float *start, const float *gate_weight, const float *gate_bias,
             const float *outputs, const float *residual_bias, const float *merge, const float *merge_bias,
             const float *head, const float *head_bias, const int64_t *dilations, const int64_t *slots,
             float *rings, int64_t *values, const double *uniforms, int64_t n, int64_t steps) {
    static _Thread_local float state[64][R + S];
    float gates[2 * G], units[G], positive[S], merged[S], logits[LEVELS];
    for (int64_t t = 0; t < steps; t++) {
        for (int64_t e = 0; e < n; e++) {
            memcpy(state[e], start, sizeof state[e]);
            for (int k = 0; k < 2 && k < t; k++) {
                const float *row = first + (k * LEVELS + values[e * steps + t - 1 - k]) * R;
                for (int j = 0; j < R; j++) state[e][j] += row[j];
            }
        }
        for (int l = 0; l < LAYERS; l++) {
            const float *now = gate_weight + l * 2 * R * 2 * G, *before = now + R * 2 * G;
            for (int64_t e = 0; e < n; e++) {
                float *x = state[e], *ring = rings + (e * slots[LAYERS] + slots[l] + t % dilations[l]) * R;
                memcpy(gates, gate_bias + l * 2 * G, sizeof gates);
                add_product(gates, x, now, R, 2 * G);
                add_product(gates, ring, before, R, 2 * G); /* zeros before the first value */
                memcpy(ring, x, R * sizeof *x);
                for (int j = 0; j < R; j++) x[j] += residual_bias[l * R + j];
                for (int j = 0; j < 2 * G; j++) gates[j] = tanhf(gates[j]);
                for (int j = 0; j < G; j++) units[j] = gates[j] + gates[j] * gates[G + j];
                add_product(x, units, outputs + l * G * (R + S), G, R + S);
            }
        }
        for (int64_t e = 0; e < n; e++) {
            for (int j = 0; j < S; j++) positive[j] = fmaxf(state[e][R + j], 0);
            memcpy(merged, merge_bias, sizeof merged);
            add_product(merged, positive, merge, S, S);
            for (int j = 0; j < S; j++) positive[j] = fmaxf(merged[j], 0);
            memcpy(logits, head_bias, sizeof logits);
            add_product(logits, positive, head, S, LEVELS);
            values[e * steps + t] = drawn(logits, uniforms[e * steps + t]);
        }
    }
}
