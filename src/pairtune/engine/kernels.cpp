// The passes between matrix products, each over memory once. Built by kernels.py for the processor it runs on.
// Every function exists for bfloat16 (_bf16) and float32 (_f32); sums and exponentials are float32.
// Shape names as in the Python files: B rows being answered, H heads, K key-value heads, D head size, R rows of logits,
// V vocabulary.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "numbers.h"

namespace {

// One new token a row: its key and value are written behind the `length` before them, then it attends to them all
// (the last `window` of them). Row b lies at slot[b] of the buffers [slots, K, longest, D].
template <class S>
void attend_one(const S *query, int64_t q_token, int64_t q_head, const S *key, int64_t k_token, int64_t k_head,
                const S *value, int64_t v_token, int64_t v_head, S *keys, S *values, const int64_t *slot,
                const int64_t *length, S *out, float scale, int64_t window, int64_t B, int64_t H, int64_t K, int64_t D,
                int64_t longest) {
#pragma omp parallel
    {
        Scratch<float> scores(longest), room(D);
        float *__restrict wide = room;
#pragma omp for collapse(2)
        for (int64_t b = 0; b < B; b++)
            for (int64_t k = 0; k < K; k++) {
                const int64_t place = (slot[b] * K + k) * longest * D;
                S *row_keys = keys + place, *row_values = values + place;
                int64_t last = length[b], first = std::max(int64_t(0), last + 1 - window);
                std::memcpy(row_keys + last * D, key + b * k_token + k * k_head, D * sizeof(S));
                std::memcpy(row_values + last * D, value + b * v_token + k * v_head, D * sizeof(S));
                for (int64_t h = k * (H / K); h < (k + 1) * (H / K); h++) {
                    const S *q = query + b * q_token + h * q_head;
                    float sum = 0, highest = std::numeric_limits<float>::lowest();
                    for (int64_t d = 0; d < D; d++) wide[d] = load(q[d]) * scale;
                    for (int64_t j = first; j <= last; j++) {
                        float score = 0;
                        for (int64_t d = 0; d < D; d++) score += wide[d] * load(row_keys[j * D + d]);
                        scores[j - first] = score;
                        highest = std::max(highest, score);
                    }
                    if (any_broken(&scores[0], last + 1 - first)) store_nan(sum);
                    for (int64_t d = 0; d < D; d++) wide[d] = 0;
                    for (int64_t j = first; j <= last; j++) {
                        float weight = exp_of(scores[j - first] - highest);
                        sum += weight;
                        for (int64_t d = 0; d < D; d++) wide[d] += weight * load(row_values[j * D + d]);
                    }
                    for (int64_t d = 0; d < D; d++) store(out[(b * H + h) * D + d], wide[d] / sum);
                }
            }
    }
}

// A sum so far: the compiler may not regroup what came before it with what comes after (-fassociative-math).
inline double in_order(double sum) {
    asm volatile("" : "+m"(sum));
    return sum;
}

template <class S> float highest_of(const S *x, int64_t V) {
    float highest = std::numeric_limits<float>::lowest();
    for (int64_t v = 0; v < V; v++) highest = std::max(highest, load(x[v]));
    return highest;
}

// log softmax(x / t) at the targets, and the log of each row's normaliser.
template <class S>
void logprobs(const S *logits, const int64_t *target, float inverse_t, float *logprob, float *normaliser, int64_t R,
              int64_t V) {
#pragma omp parallel for
    for (int64_t r = 0; r < R; r++) {
        const S *x = logits + r * V;
        float highest = highest_of(x, V), sum = 0;
        for (int64_t v = 0; v < V; v++) sum += exp_of((load(x[v]) - highest) * inverse_t);
        normaliser[r] = highest * inverse_t + std::log(sum);
        logprob[r] = load(x[target[r]]) * inverse_t - normaliser[r];
        if (any_broken(x, V)) store_nan(logprob[r]), store_nan(normaliser[r]);
    }
}

// d logprob / d logits = (one-hot - softmax) / t, times the incoming gradient, over the logits.
template <class S>
void logprobs_gradient(S *logits, const int64_t *target, const float *normaliser, const float *grad, float inverse_t,
                       int64_t R, int64_t V) {
#pragma omp parallel for
    for (int64_t r = 0; r < R; r++) {
        S *x = logits + r * V;
        float scale = grad[r] * inverse_t, shift = normaliser[r];
        float at_target = exp_of(std::min(load(x[target[r]]) * inverse_t - shift, 0.0f));
        for (int64_t v = 0; v < V; v++)
            store(x[v], -scale * exp_of(std::min(load(x[v]) * inverse_t - shift, 0.0f)));
        store(x[target[r]], scale * (1 - at_target));
    }
}

// One token a row by inverting the cumulative distribution at u: blocks first, then tokens in the block it falls in.
template <class S>
void draw(const S *logits, const double *uniform, float inverse_t, int64_t *token, float *logprob, int64_t R,
          int64_t V) {
    const int64_t block = 256, blocks = (V + block - 1) / block;
#pragma omp parallel
    {
        Scratch<double> upto(blocks);
#pragma omp for
        for (int64_t r = 0; r < R; r++) {
            const S *x = logits + r * V;
            float highest = highest_of(x, V);
            double total = 0;
            for (int64_t b = 0; b < blocks; b++) {
                float sum = 0;
                int64_t end = std::min(V, (b + 1) * block);
                for (int64_t v = b * block; v < end; v++) sum += exp_of((load(x[v]) - highest) * inverse_t);
                upto[b] = total += sum;
            }
            double level = uniform[r] * total;
            int64_t b = 0;
            while (b < blocks - 1 && upto[b] <= level) b++;
            while (b > 0 && upto[b] == upto[b - 1]) b--;  // rounding at the very end: nothing of probability 0
            double sum = b ? upto[b - 1] : 0;
            int64_t chosen = b * block;
            float weight = 0;
            for (int64_t v = b * block; v < std::min(V, (b + 1) * block); v++) {
                float w = exp_of((load(x[v]) - highest) * inverse_t);
                if (w == 0) continue;
                chosen = v, weight = w, sum += w;
                if (sum > level) break;
            }
            token[r] = chosen;
            logprob[r] = float(std::log(weight / total));
            if (any_broken(x, V)) store_nan(logprob[r]);
        }
    }
}

// Numbers that one thread takes at a time where all are treated alike. Blocks begin at the same places whatever the
// number of threads, so that no number's rounding depends on who computes it.
constexpr int64_t BLOCK = 4096;

// AdamW on the master copy, and the copy rounded into the model, unbiased. `clip` scales the gradient; the rises are
// 1 - beta, the corrections 1 - beta1^t and sqrt(1 - beta2^t), worked out in double precision by the caller.
template <class S, class W>
void adamw(float *master, float *mean, float *square, const S *grad, W *weight, float rate, float clip, float rise1,
           float beta2, float rise2, float correction1, float correction2, float eps, float decay, int64_t count) {
    float step = rate / correction1, keep = 1 - rate * decay;
#pragma omp parallel for
    for (int64_t begin = 0; begin < count; begin += BLOCK) {
        for (int64_t i = begin; i < std::min(count, begin + BLOCK); i++) {
            float g = load(grad[i]) * clip;
            float m = mean[i] + (g - mean[i]) * rise1;
            float v = square[i] * beta2 + g * g * rise2;
            float w = master[i] * keep - step * m / (std::sqrt(v) / correction2 + eps);
            mean[i] = m, square[i] = v, master[i] = w;
            store_spread(weight[i], w, uint32_t(i));
        }
    }
}

// Block by block in float32; then the blocks in double precision, first those of either half, in their order.
template <class S> void square_sum(const S *x, double *out, int64_t count) {
    const int64_t blocks = (count + BLOCK - 1) / BLOCK, half = (blocks + 1) / 2;
    Scratch<double> sums(blocks);
#pragma omp parallel for
    for (int64_t b = 0; b < blocks; b++) {
        int64_t end = std::min(count, (b + 1) * BLOCK);
        float sum = 0;
        for (int64_t i = b * BLOCK; i < end; i++) sum += load(x[i]) * load(x[i]);
        sums[b] = sum;
    }
    double first = 0, second = 0;
    for (int64_t b = 0; b < half; b++) first = in_order(first + sums[b]);
    for (int64_t b = half; b < blocks; b++) second = in_order(second + sums[b]);
    *out = first + second;
}

}  // namespace

#define FOR_DTYPE(S, suffix)                                                                                           \
    extern "C" void attend_one_##suffix(                                                                               \
        const S *query, int64_t q_token, int64_t q_head, const S *key, int64_t k_token, int64_t k_head,                \
        const S *value, int64_t v_token, int64_t v_head, S *keys, S *values, const int64_t *slot,                      \
        const int64_t *length, S *out, float scale, int64_t window, int64_t B, int64_t H, int64_t K, int64_t D,        \
        int64_t longest) {                                                                                             \
        attend_one(query, q_token, q_head, key, k_token, k_head, value, v_token, v_head, keys, values, slot, length,   \
                   out, scale, window, B, H, K, D, longest);                                                           \
    }                                                                                                                  \
    extern "C" void logprobs_##suffix(const S *logits, const int64_t *target, float inverse_t, float *logprob,         \
                                      float *normaliser, int64_t R, int64_t V) {                                       \
        logprobs(logits, target, inverse_t, logprob, normaliser, R, V);                                                \
    }                                                                                                                  \
    extern "C" void logprobs_gradient_##suffix(S *logits, const int64_t *target, const float *normaliser,              \
                                               const float *grad, float inverse_t, int64_t R, int64_t V) {             \
        logprobs_gradient(logits, target, normaliser, grad, inverse_t, R, V);                                          \
    }                                                                                                                  \
    extern "C" void draw_##suffix(const S *logits, const double *uniform, float inverse_t, int64_t *token,             \
                                  float *logprob, int64_t R, int64_t V) {                                              \
        draw(logits, uniform, inverse_t, token, logprob, R, V);                                                        \
    }                                                                                                                  \
    extern "C" void square_sum_##suffix(const S *x, double *out, int64_t count) { square_sum(x, out, count); }

FOR_DTYPE(bf16, bf16)
FOR_DTYPE(float, f32)

#define FOR_GRADIENT(S, W, suffix)                                                                                     \
    extern "C" void adamw_##suffix(float *master, float *mean, float *square, const S *grad, W *weight, float rate,    \
                                   float clip, float rise1, float beta2, float rise2, float correction1,               \
                                   float correction2, float eps, float decay, int64_t count) {                         \
        adamw(master, mean, square, grad, weight, rate, clip, rise1, beta2, rise2, correction1, correction2, eps,      \
              decay, count);                                                                                           \
    }

FOR_GRADIENT(bf16, bf16, bf16_bf16)
FOR_GRADIENT(float, bf16, f32_bf16)
FOR_GRADIENT(float, float, f32_f32)
