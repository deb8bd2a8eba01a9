// The passes between matrix products, each over memory once. Built by kernels.py for the processor it runs on.
// Every function exists for bfloat16 (_bf16) and float32 (_f32); sums and exponentials are float32.
// Shape names as in the Python files: N rows of a block, K key-value heads, G query heads a key-value head, L length,
// D head size, T tokens, R rows of logits, V vocabulary.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace {

struct bf16 {
    uint16_t bits;
};

inline float load(float x) { return x; }
inline float load(bf16 x) {
    uint32_t wide = uint32_t(x.bits) << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
}
inline void store(float &at, float x) { at = x; }
inline void store(bf16 &at, float x) {  // round to nearest even; a NaN stays one
    uint32_t wide;
    std::memcpy(&wide, &x, 4);
    uint32_t rounded = (wide + 0x7fff + ((wide >> 16) & 1)) >> 16;
    at.bits = uint16_t((wide & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

// exp for x <= 0 (softmax never asks for more): 2^k times a polynomial, relative error below 2e-7, 0 below -87.
inline float exp_of(float x) {
    float clamped = std::max(x, -87.0f);
    float k = std::nearbyint(clamped * 1.44269504f);
    float r = (clamped - k * 0.693359375f) - k * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = (int32_t(k) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, 4);
    return x < -87.0f ? 0.0f : p * power;
}

// What token i of a row sees: [a, b) of its prompt and [c, i] of its own branch.
struct Seen {
    int32_t a, b, c, unused;
};

template <class S>
void heads_first(const S *x, int64_t token_stride, int64_t head_stride, const int64_t *index, S *out, int64_t N,
                 int64_t H, int64_t L, int64_t D) {
#pragma omp parallel for collapse(2)
    for (int64_t n = 0; n < N; n++)
        for (int64_t h = 0; h < H; h++)
            for (int64_t l = 0; l < L; l++) {
                int64_t token = index[n * L + l];
                S *to = out + ((n * H + h) * L + l) * D;
                if (token < 0)
                    std::memset(to, 0, D * sizeof(S));
                else
                    std::memcpy(to, x + token * token_stride + h * head_stride, D * sizeof(S));
            }
}

template <class S>
void tokens_first(const S *x, const int64_t *index, S *out, int64_t N, int64_t H, int64_t L, int64_t D) {
#pragma omp parallel for collapse(2)
    for (int64_t n = 0; n < N; n++)
        for (int64_t l = 0; l < L; l++) {
            int64_t token = index[n * L + l];
            if (token < 0) continue;
            for (int64_t h = 0; h < H; h++)
                std::memcpy(out + (token * H + h) * D, x + ((n * H + h) * L + l) * D, D * sizeof(S));
        }
}

template <class S>
void softmax_seen(S *scores, const Seen *seen, float scale, int64_t N, int64_t H, int64_t L) {
#pragma omp parallel for collapse(2)
    for (int64_t n = 0; n < N; n++)
        for (int64_t h = 0; h < H; h++) {
            float row[L];
            for (int64_t i = 0; i < L; i++) {
                S *at = scores + ((n * H + h) * L + i) * L;
                Seen s = seen[n * L + i];
                int32_t from[2] = {s.a, s.c}, to[2] = {s.b, int32_t(i) + 1};
                float highest = std::numeric_limits<float>::lowest(), sum = 0;
                for (int part = 0; part < 2; part++)
                    for (int32_t j = from[part]; j < to[part]; j++) {
                        row[j] = load(at[j]) * scale;
                        highest = std::max(highest, row[j]);
                    }
                for (int part = 0; part < 2; part++)
                    for (int32_t j = from[part]; j < to[part]; j++) {
                        row[j] = exp_of(row[j] - highest);
                        sum += row[j];
                    }
                float inverse = 1 / sum;
                std::memset((void *)at, 0, L * sizeof(S));
                for (int part = 0; part < 2; part++)
                    for (int32_t j = from[part]; j < to[part]; j++) store(at[j], row[j] * inverse);
            }
        }
}

template <class S>
void softmax_seen_gradient(S *grad, const S *weights, const Seen *seen, float scale, int64_t N, int64_t H, int64_t L) {
#pragma omp parallel for collapse(2)
    for (int64_t n = 0; n < N; n++)
        for (int64_t h = 0; h < H; h++)
            for (int64_t i = 0; i < L; i++) {
                int64_t offset = ((n * H + h) * L + i) * L;
                S *g = grad + offset;
                const S *w = weights + offset;
                Seen s = seen[n * L + i];
                int32_t from[2] = {s.a, s.c}, to[2] = {s.b, int32_t(i) + 1};
                float sum = 0;
                for (int part = 0; part < 2; part++)
                    for (int32_t j = from[part]; j < to[part]; j++) sum += load(w[j]) * load(g[j]);
                for (int part = 0; part < 2; part++)
                    for (int32_t j = from[part]; j < to[part]; j++)
                        store(g[j], load(w[j]) * (load(g[j]) - sum) * scale);
                int32_t gaps[3][2] = {{0, s.a}, {std::max(s.a, s.b), s.c}, {int32_t(i) + 1, int32_t(L)}};
                for (auto &gap : gaps)
                    if (gap[1] > gap[0]) std::memset((void *)(g + gap[0]), 0, (gap[1] - gap[0]) * sizeof(S));
            }
}

// One new token a row: its key and value are written behind the `length` before them, then it attends to them all
// (the last `window` of them). Row b lies at slot[b] of the buffers [slots, K, longest, D].
template <class S>
void attend_one(const S *query, const S *key, const S *value, int64_t q_token, int64_t q_head, int64_t k_token,
                int64_t k_head, int64_t v_token, int64_t v_head, S *keys, S *values, const int64_t *slot,
                const int64_t *length, S *out, float scale, int64_t window, int64_t B, int64_t H, int64_t K, int64_t D,
                int64_t longest) {
#pragma omp parallel for collapse(2)
    for (int64_t b = 0; b < B; b++)
        for (int64_t k = 0; k < K; k++) {
            S *row_keys = keys + (slot[b] * K + k) * longest * D, *row_values = values + (slot[b] * K + k) * longest * D;
            int64_t last = length[b], first = std::max(int64_t(0), last + 1 - window);
            std::memcpy(row_keys + last * D, key + b * k_token + k * k_head, D * sizeof(S));
            std::memcpy(row_values + last * D, value + b * v_token + k * v_head, D * sizeof(S));
            for (int64_t h = k * (H / K); h < (k + 1) * (H / K); h++) {
                const S *q = query + b * q_token + h * q_head;
                float scores[last + 1 - first], wide[D], sum = 0, highest = std::numeric_limits<float>::lowest();
                for (int64_t d = 0; d < D; d++) wide[d] = load(q[d]) * scale;
                for (int64_t j = first; j <= last; j++) {
                    float score = 0;
                    for (int64_t d = 0; d < D; d++) score += wide[d] * load(row_keys[j * D + d]);
                    scores[j - first] = score;
                    highest = std::max(highest, score);
                }
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
#pragma omp parallel for
    for (int64_t r = 0; r < R; r++) {
        const S *x = logits + r * V;
        float highest = highest_of(x, V);
        double upto[blocks], total = 0;
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
    }
}

// AdamW on the master copy, and the copy rounded into the model. `clip` scales the gradient; the rises are
// 1 - beta, the corrections 1 - beta1^t and sqrt(1 - beta2^t), worked out in double precision by the caller.
template <class S, class W>
void adamw(float *master, float *mean, float *square, const S *grad, W *weight, float rate, float clip, float rise1,
           float beta2, float rise2, float correction1, float correction2, float eps, float decay, int64_t count) {
    float step = rate / correction1, keep = 1 - rate * decay;
#pragma omp parallel for
    for (int64_t i = 0; i < count; i++) {
        float g = load(grad[i]) * clip;
        float m = mean[i] + (g - mean[i]) * rise1;
        float v = square[i] * beta2 + g * g * rise2;
        float w = master[i] * keep - step * m / (std::sqrt(v) / correction2 + eps);
        mean[i] = m, square[i] = v, master[i] = w;
        store(weight[i], w);
    }
}

template <class S> void square_sum(const S *x, double *out, int64_t count) {
    const int64_t block = 4096, blocks = (count + block - 1) / block;
    double total = 0;
#pragma omp parallel for reduction(+ : total)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t end = std::min(count, (b + 1) * block);
        float sum = 0;
        for (int64_t i = b * block; i < end; i++) sum += load(x[i]) * load(x[i]);
        total += sum;
    }
    *out = total;
}

}  // namespace

#define FOR_DTYPE(S, suffix)                                                                                           \
    extern "C" void heads_first_##suffix(const S *x, int64_t token_stride, int64_t head_stride, const int64_t *index,  \
                                         S *out, int64_t N, int64_t H, int64_t L, int64_t D) {                         \
        heads_first(x, token_stride, head_stride, index, out, N, H, L, D);                                             \
    }                                                                                                                  \
    extern "C" void tokens_first_##suffix(const S *x, const int64_t *index, S *out, int64_t N, int64_t H, int64_t L,   \
                                          int64_t D) {                                                                 \
        tokens_first(x, index, out, N, H, L, D);                                                                       \
    }                                                                                                                  \
    extern "C" void softmax_seen_##suffix(S *scores, const Seen *seen, float scale, int64_t N, int64_t H, int64_t L) { \
        softmax_seen(scores, seen, scale, N, H, L);                                                                    \
    }                                                                                                                  \
    extern "C" void softmax_seen_gradient_##suffix(S *grad, const S *weights, const Seen *seen, float scale,           \
                                                   int64_t N, int64_t H, int64_t L) {                                  \
        softmax_seen_gradient(grad, weights, seen, scale, N, H, L);                                                    \
    }                                                                                                                  \
    extern "C" void attend_one_##suffix(                                                                               \
        const S *query, const S *key, const S *value, int64_t q_token, int64_t q_head, int64_t k_token,                \
        int64_t k_head, int64_t v_token, int64_t v_head, S *keys, S *values, const int64_t *slot,                      \
        const int64_t *length, S *out, float scale, int64_t window, int64_t B, int64_t H, int64_t K, int64_t D,        \
        int64_t longest) {                                                                                             \
        attend_one(query, key, value, q_token, q_head, k_token, k_head, v_token, v_head, keys, values, slot, length,   \
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
