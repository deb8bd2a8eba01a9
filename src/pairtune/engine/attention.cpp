// Softmax attention over a pack's segments, forward and backward, without padding, copies or a matrix of scores in memory.
// A segment's queries are its own tokens; its keys are its row's prompt (unless it begins the row) and then its own, so
// query i sees all keys up to its own: `Segments` in data/pack.py. Scores and sums are float32; a bfloat16 product takes
// pairs of numbers where the processor has an instruction for that.
// Names: T tokens, S segments, H heads, K key-value heads, D head size. Shapes of scratch are written where it is cut.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "numbers.h"

namespace {

using Lanes = float __attribute__((vector_size(64)));
constexpr int64_t WIDE = 16;    // floats of a vector
constexpr int64_t QUERIES = 48; // queries of one tile: its scores stay in the second cache

inline int64_t whole(int64_t count, int64_t of) { return (count + of - 1) / of * of; }

// ---- products -----------------------------------------------------------------------------------------------------
// A number format of operands. A word is what one lane multiplies at a time: `steps` numbers that lie side by side.

struct Single {
    using Number = float;
    using Word = float;
    static constexpr int64_t steps = 1;
    static Lanes multiply(Lanes sum, Word a, Lanes b) { return sum + a * b; }
};

#if defined(__AVX512BF16__)
struct Pair {
    using Number = bf16;
    using Word = uint32_t;
    static constexpr int64_t steps = 2;
    static Lanes multiply(Lanes sum, Word a, Lanes b) {
        return (Lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(int(a)), (__m512bh)b);
    }
};
template <class S> struct FormatOf { using type = Single; };
template <> struct FormatOf<bf16> { using type = Pair; };
#else
template <class S> struct FormatOf { using type = Single; };
#endif

// The left operand: the word of row m and step k lies at m * row + k * step. The right one lies in panels of 16 columns,
// [panel][step][16 words].
template <class F> struct Left {
    const typename F::Word *words;
    int64_t row, step;
};

template <class F, int M, int N>
void product_tile(int64_t steps, Left<F> a, const typename F::Word *b, int64_t panel, float *c, int64_t stride,
                  bool add) {
    Lanes sum[M][N];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
            if (add)
                std::memcpy(&sum[m][n], c + m * stride + n * WIDE, sizeof(Lanes));
            else
                sum[m][n] = Lanes{};
        }
    for (int64_t k = 0; k < steps; k++) {
        Lanes right[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) std::memcpy(&right[n], b + n * panel + k * WIDE, sizeof(Lanes));
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            typename F::Word word = a.words[m * a.row + k * a.step];
#pragma GCC unroll 4
            for (int n = 0; n < N; n++) sum[m][n] = F::multiply(sum[m][n], word, right[n]);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) std::memcpy(c + m * stride + n * WIDE, &sum[m][n], sizeof(Lanes));
}

template <class F, int N>
void product_rows(int64_t rows, int64_t steps, Left<F> a, const typename F::Word *b, int64_t panel, float *c,
                  int64_t stride, bool add) {
    for (int64_t m = 0; m < rows; m += 6, a.words += 6 * a.row, c += 6 * stride) switch (rows - m) {
        case 1: product_tile<F, 1, N>(steps, a, b, panel, c, stride, add); break;
        case 2: product_tile<F, 2, N>(steps, a, b, panel, c, stride, add); break;
        case 3: product_tile<F, 3, N>(steps, a, b, panel, c, stride, add); break;
        case 4: product_tile<F, 4, N>(steps, a, b, panel, c, stride, add); break;
        case 5: product_tile<F, 5, N>(steps, a, b, panel, c, stride, add); break;
        default: product_tile<F, 6, N>(steps, a, b, panel, c, stride, add);
        }
}

// c [rows, columns] = a · b, or is added to. `panel` is the distance of b's panels, `stride` of c's rows.
template <class F>
void product(int64_t rows, int64_t columns, int64_t steps, Left<F> a, const typename F::Word *b, int64_t panel,
             float *c, int64_t stride, bool add) {
    for (int64_t n = 0; n < columns; n += 4 * WIDE, b += 4 * panel, c += 4 * WIDE) switch ((columns - n) / WIDE) {
        case 1: product_rows<F, 1>(rows, steps, a, b, panel, c, stride, add); break;
        case 2: product_rows<F, 2>(rows, steps, a, b, panel, c, stride, add); break;
        case 3: product_rows<F, 3>(rows, steps, a, b, panel, c, stride, add); break;
        default: product_rows<F, 4>(rows, steps, a, b, panel, c, stride, add);
        }
}

// ---- operands -----------------------------------------------------------------------------------------------------

inline float *as_words(float *x) { return x; }
inline uint32_t *as_words(bf16 *x) { return reinterpret_cast<uint32_t *>(x); }
inline uint32_t pair(bf16 first, bf16 second) { return uint32_t(first.bits) | uint32_t(second.bits) << 16; }

template <class N, class S> inline void convert(const S *from, N *to, int64_t count) {
    for (int64_t i = 0; i < count; i++) store(to[i], load(from[i]));
}
inline void convert(const bf16 *from, bf16 *to, int64_t count) { std::memcpy(to, from, count * sizeof(bf16)); }

// Two rows side by side, each number of the first before that of the second; one row where a word is one number.
inline void interleave(const bf16 *first, const bf16 *second, uint32_t *to, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = pair(first[i], second[i]);
}
inline void interleave(const float *first, const float *, float *to, int64_t count) {
    std::memcpy(to, first, count * sizeof(float));
}

// A head of some tokens: token i of those that `at` gives lies at x + at(i) * token. D numbers, filled up to `size` with 0.
template <class F, class S, class At> struct Head {
    using Number = typename F::Number;
    using Word = typename F::Word;
    const S *x;
    int64_t token, count, D, size;
    At at;

    void row(int64_t i, Number *to) const {
        int64_t known = i < count ? D : 0;
        if (known) convert(x + at(i) * token, to, D);
        std::memset((void *)(to + known), 0, (size - known) * sizeof(Number));
    }
    // As rows, [count][size].
    void rows(Number *to) const {
        for (int64_t i = 0; i < count; i++) row(i, to + i * size);
    }
    // As panels whose columns are the tokens: [tokens / 16][size / steps][16].
    void columns(Word *to) const {
        const int64_t words = size / F::steps;
        alignas(64) Number line[size];
        for (int64_t i = 0; i < whole(count, WIDE); i++) {
            row(i, line);
            Word *panel = to + i / WIDE * words * WIDE + i % WIDE;
            const Word *from = as_words(line);
            for (int64_t d = 0; d < words; d++) panel[d * WIDE] = from[d];
        }
    }
    // As panels whose columns are the head's numbers: [size / 16][tokens / steps][16]. Returns a panel's length.
    int64_t panels(Word *to) const {
        const int64_t steps = whole(count, F::steps) / F::steps, panel = steps * WIDE;
        alignas(64) Number line[2][size];
        alignas(64) Word both[size];
        for (int64_t i = 0; i < steps; i++) {
            for (int64_t j = 0; j < F::steps; j++) row(i * F::steps + j, line[j]);
            interleave(line[0], line[1], both, size);
            for (int64_t d = 0; d < size; d += WIDE)
                std::memcpy(to + d / WIDE * panel + i * WIDE, both + d, WIDE * sizeof(Word));
        }
        return panel;
    }
};

// Rows [count][stride] as a left operand by columns: [count / steps][stride] words; the last row's partner is 0.
template <class F> Left<F> by_column(typename F::Number *rows, int64_t count, int64_t stride, typename F::Word *to) {
    if (count % F::steps) std::memset((void *)(rows + count * stride), 0, stride * sizeof(rows[0]));
    for (int64_t m = 0; m < count; m += F::steps)
        interleave(rows + m * stride, rows + (m + 1) * stride, to + m / F::steps * stride, stride);
    return {to, 1, stride};
}

// ---- segments -----------------------------------------------------------------------------------------------------

struct Segment {
    int64_t begin, count;  // its own tokens
    int64_t row, before;   // its row's first token, and how many of the row's tokens are keys before its own
    int64_t keys() const { return before + count; }
    int64_t token(int64_t key) const { return key < before ? row + key : begin + key - before; }
};

struct Row {
    int64_t first, stop;  // its segments
    int64_t begin, count; // its tokens
    double work;
};

struct Shape {
    int64_t S, H, K, D;
    float scale;
    int64_t window;
};

struct Cut {
    std::vector<Segment> segments;
    std::vector<Row> rows;
    int64_t longest = 0, longest_row = 0;

    Cut(const int32_t *queries, const int32_t *keys, int64_t S) {
        for (int64_t s = 0; s < S; s++) {
            int64_t begin = queries[s], count = queries[s + 1] - begin, before = keys[s + 1] - keys[s] - count;
            if (before == 0) rows.push_back({s, s, begin, 0, 0});
            Row &row = rows.back();
            segments.push_back({begin, count, row.begin, before});
            row.stop = s + 1, row.count += count, row.work += double(count) * double(before + before + count);
            longest = std::max(longest, before + count), longest_row = std::max(longest_row, row.count);
        }
        // The longest first, so that no thread is left alone with it at the end.
        std::sort(rows.begin(), rows.end(), [](const Row &a, const Row &b) { return a.work > b.work; });
    }
};

// Some queries of a segment and the keys that any of them sees, in whole panels: [from, to).
struct Tile {
    int64_t first, count, from, to;
    Tile(const Segment &segment, int64_t first, int64_t window)
        : first(first), count(std::min(QUERIES, segment.count - first)),
          from(std::max(int64_t(0), segment.before + first + 1 - window) / WIDE * WIDE),
          to(whole(segment.before + first + count, WIDE)) {}
};

template <class N> struct Scratch {
    std::vector<N> memory;
    N *data;
    explicit Scratch(int64_t count) : memory(count + 64 / sizeof(N)) {
        data = reinterpret_cast<N *>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
    }
    operator N *() { return data; }
};

// exp(scale * (x - the highest)) of a row's scores: their sum, and in `highest` what was taken off.
template <class N> float weigh(float *__restrict x, N *__restrict weight, int64_t count, float scale, float &highest) {
    float most = std::numeric_limits<float>::lowest(), sum = 0;
    for (int64_t j = 0; j < count; j++) most = std::max(most, x[j]);
    for (int64_t j = 0; j < count; j++) {
        x[j] = exp_of((x[j] - most) * scale);
        sum += x[j];
    }
    convert(x, weight, count);
    highest = most;
    return sum;
}

template <class S>
void attend(const S *query, int64_t q_token, int64_t q_head, const S *key, int64_t k_token, int64_t k_head,
            const S *value, int64_t v_token, int64_t v_head, const int32_t *queries, const int32_t *keys, S *out,
            float *normaliser, Shape shape) {
    using F = typename FormatOf<S>::type;
    using Number = typename F::Number;
    const Cut cut(queries, keys, shape.S);
    const int64_t H = shape.H, D = shape.D, size = whole(D, WIDE), words = size / F::steps;
    const int64_t longest = whole(cut.longest, WIDE);
#pragma omp parallel
    {
        Scratch<typename F::Word> key_columns(longest * words), value_panels(longest * size / F::steps);
        Scratch<Number> tile_query(QUERIES * size), weights(QUERIES * longest);
        Scratch<float> scores(QUERIES * longest), mixed(QUERIES * size);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < int64_t(cut.rows.size()) * shape.K; task++) {
            const Row &row = cut.rows[task / shape.K];
            const int64_t k = task % shape.K, shared = H / shape.K;
            for (int64_t s = row.first; s < row.stop; s++) {
                const Segment &segment = cut.segments[s];
                auto of_key = [&](int64_t j) { return segment.token(j); };
                const int64_t total = segment.keys();
                Head<F, S, decltype(of_key)>{key + k * k_head, k_token, total, D, size, of_key}.columns(key_columns);
                const int64_t panel =
                    Head<F, S, decltype(of_key)>{value + k * v_head, v_token, total, D, size, of_key}.panels(
                        value_panels);
                for (int64_t h = k * shared; h < (k + 1) * shared; h++)
                    for (int64_t first = 0; first < segment.count; first += QUERIES) {
                        const Tile tile(segment, first, shape.window);
                        auto of_query = [&](int64_t m) { return segment.begin + first + m; };
                        Head<F, S, decltype(of_query)>{query + h * q_head, q_token, tile.count, D, size, of_query}
                            .rows(tile_query);
                        const int64_t span = tile.to - tile.from;
                        product<F>(tile.count, span, words, {as_words(tile_query), words, 1},
                                   key_columns + tile.from * words, words * WIDE, scores, span, false);
                        float inverse[QUERIES];
                        for (int64_t m = 0; m < tile.count; m++) {
                            const int64_t last = segment.before + first + m;
                            const int64_t low = std::max(int64_t(0), last + 1 - shape.window) - tile.from;
                            const int64_t high = last + 1 - tile.from;
                            float *x = scores + m * span;
                            Number *weight = weights + m * span;
                            float highest;
                            const float sum = weigh(x + low, weight + low, high - low, shape.scale, highest);
                            std::memset((void *)weight, 0, low * sizeof(Number));
                            std::memset((void *)(weight + high), 0, (span - high) * sizeof(Number));
                            inverse[m] = 1 / sum;
                            normaliser[of_query(m) * H + h] = highest * shape.scale + std::log(sum);
                        }
                        const int64_t steps = (std::min(tile.to, whole(total, F::steps)) - tile.from) / F::steps;
                        product<F>(tile.count, size, steps, {as_words(weights), span / F::steps, 1},
                                   value_panels + tile.from / F::steps * WIDE, panel, mixed, size, false);
                        for (int64_t m = 0; m < tile.count; m++)
                            for (int64_t d = 0; d < D; d++)
                                store(out[(of_query(m) * H + h) * D + d], mixed[m * size + d] * inverse[m]);
                    }
            }
        }
    }
}

// The gradients of query [T, H, D], key and value [T, K, D] from that of `out`. Weights are computed again from scores.
template <class S>
void attend_gradient(const S *query, int64_t q_token, int64_t q_head, const S *key, int64_t k_token, int64_t k_head,
                     const S *value, int64_t v_token, int64_t v_head, const int32_t *queries, const int32_t *keys,
                     const S *out, const float *normaliser, const S *grad, int64_t g_token, int64_t g_head,
                     S *grad_query, S *grad_key, S *grad_value, Shape shape) {
    using F = typename FormatOf<S>::type;
    using Number = typename F::Number;
    using Word = typename F::Word;
    const Cut cut(queries, keys, shape.S);
    const int64_t H = shape.H, K = shape.K, D = shape.D, size = whole(D, WIDE), words = size / F::steps;
    const int64_t longest = whole(cut.longest, WIDE);
#pragma omp parallel
    {
        Scratch<Word> key_columns(longest * words), value_columns(longest * words);
        Scratch<Word> key_panels(longest * size / F::steps);
        Scratch<Number> tile_query(QUERIES * size), tile_grad(QUERIES * size);
        Scratch<Word> query_panels(QUERIES * size / F::steps), grad_panels(QUERIES * size / F::steps);
        Scratch<float> scores(QUERIES * longest), slopes(QUERIES * longest);
        Scratch<Number> weights(QUERIES * longest), changes(QUERIES * longest);
        Scratch<Word> by_key(QUERIES * longest / F::steps);
        Scratch<float> moved(QUERIES * size), of_keys(longest * size), of_values(longest * size);
        Scratch<float> row_keys(cut.longest_row * size), row_values(cut.longest_row * size);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < int64_t(cut.rows.size()) * K; task++) {
            const Row &row = cut.rows[task / K];
            const int64_t k = task % K, shared = H / K;
            std::fill_n(row_keys.data, row.count * size, 0.0f);
            std::fill_n(row_values.data, row.count * size, 0.0f);
            for (int64_t s = row.first; s < row.stop; s++) {
                const Segment &segment = cut.segments[s];
                auto of_key = [&](int64_t j) { return segment.token(j); };
                const int64_t total = segment.keys();
                const Head<F, S, decltype(of_key)> own_keys{key + k * k_head, k_token, total, D, size, of_key};
                own_keys.columns(key_columns);
                const int64_t panel = own_keys.panels(key_panels);
                Head<F, S, decltype(of_key)>{value + k * v_head, v_token, total, D, size, of_key}.columns(
                    value_columns);
                std::fill_n(of_keys.data, whole(total, WIDE) * size, 0.0f);
                std::fill_n(of_values.data, whole(total, WIDE) * size, 0.0f);
                for (int64_t h = k * shared; h < (k + 1) * shared; h++)
                    for (int64_t first = 0; first < segment.count; first += QUERIES) {
                        const Tile tile(segment, first, shape.window);
                        auto of_query = [&](int64_t m) { return segment.begin + first + m; };
                        const int64_t span = tile.to - tile.from;
                        const Head<F, S, decltype(of_query)> q{query + h * q_head, q_token,  tile.count, D,
                                                               size,               of_query};
                        const Head<F, S, decltype(of_query)> g{grad + h * g_head, g_token,  tile.count, D,
                                                               size,              of_query};
                        q.rows(tile_query), g.rows(tile_grad);
                        const int64_t query_panel = q.panels(query_panels), grad_panel = g.panels(grad_panels);
                        product<F>(tile.count, span, words, {as_words(tile_query), words, 1},
                                   key_columns + tile.from * words, words * WIDE, scores, span, false);
                        product<F>(tile.count, span, words, {as_words(tile_grad), words, 1},
                                   value_columns + tile.from * words, words * WIDE, slopes, span, false);
                        for (int64_t m = 0; m < tile.count; m++) {
                            const int64_t last = segment.before + first + m;
                            const int64_t low = std::max(int64_t(0), last + 1 - shape.window) - tile.from;
                            const int64_t high = last + 1 - tile.from, place = (of_query(m) * H + h) * D;
                            const float *x = scores + m * span, *slope = slopes + m * span;
                            const float shift = normaliser[of_query(m) * H + h];
                            Number *weight = weights + m * span, *change = changes + m * span;
                            float mean = 0;  // of the slopes, by weight
                            for (int64_t d = 0; d < D; d++)
                                mean += load(out[place + d]) * load(tile_grad[m * size + d]);
                            std::memset((void *)weight, 0, low * sizeof(Number));
                            std::memset((void *)change, 0, low * sizeof(Number));
                            for (int64_t j = low; j < high; j++) {
                                float w = exp_of(std::min(x[j] * shape.scale - shift, 0.0f));
                                store(weight[j], w);
                                store(change[j], w * (slope[j] - mean) * shape.scale);
                            }
                            std::memset((void *)(weight + high), 0, (span - high) * sizeof(Number));
                            std::memset((void *)(change + high), 0, (span - high) * sizeof(Number));
                        }
                        const int64_t pairs = whole(tile.count, F::steps) / F::steps;
                        const int64_t steps = (std::min(tile.to, whole(total, F::steps)) - tile.from) / F::steps;
                        product<F>(tile.count, size, steps, {as_words(changes), span / F::steps, 1},
                                   key_panels + tile.from / F::steps * WIDE, panel, moved, size, false);
                        for (int64_t m = 0; m < tile.count; m++)
                            for (int64_t d = 0; d < D; d++)
                                store(grad_query[(of_query(m) * H + h) * D + d], moved[m * size + d]);
                        product<F>(span, size, pairs, by_column<F>(weights, tile.count, span, by_key), grad_panels,
                                   grad_panel, of_values + tile.from * size, size, true);
                        product<F>(span, size, pairs, by_column<F>(changes, tile.count, span, by_key), query_panels,
                                   query_panel, of_keys + tile.from * size, size, true);
                    }
                for (int64_t j = 0; j < total; j++) {
                    const int64_t place = (segment.token(j) - row.begin) * size;
                    for (int64_t d = 0; d < D; d++) {
                        row_keys[place + d] += of_keys[j * size + d];
                        row_values[place + d] += of_values[j * size + d];
                    }
                }
            }
            for (int64_t t = 0; t < row.count; t++)
                for (int64_t d = 0; d < D; d++) {
                    const int64_t place = ((row.begin + t) * K + k) * D + d;
                    store(grad_key[place], row_keys[t * size + d]);
                    store(grad_value[place], row_values[t * size + d]);
                }
        }
    }
}

}  // namespace

#define FOR_DTYPE(S, suffix)                                                                                           \
    extern "C" void attend_##suffix(const S *query, int64_t q_token, int64_t q_head, const S *key, int64_t k_token,    \
                                    int64_t k_head, const S *value, int64_t v_token, int64_t v_head,                   \
                                    const int32_t *queries, const int32_t *keys, S *out, float *normaliser,            \
                                    float scale, int64_t window, int64_t segments, int64_t H, int64_t K, int64_t D) {  \
        attend(query, q_token, q_head, key, k_token, k_head, value, v_token, v_head, queries, keys, out, normaliser,   \
               {segments, H, K, D, scale, window});                                                                    \
    }                                                                                                                  \
    extern "C" void attend_gradient_##suffix(                                                                          \
        const S *query, int64_t q_token, int64_t q_head, const S *key, int64_t k_token, int64_t k_head,                \
        const S *value, int64_t v_token, int64_t v_head, const int32_t *queries, const int32_t *keys, const S *out,    \
        const float *normaliser, const S *grad, int64_t g_token, int64_t g_head, S *grad_query, S *grad_key,           \
        S *grad_value, float scale, int64_t window, int64_t segments, int64_t H, int64_t K, int64_t D) {               \
        attend_gradient(query, q_token, q_head, key, k_token, k_head, value, v_token, v_head, queries, keys, out,      \
                        normaliser, grad, g_token, g_head, grad_query, grad_key, grad_value,                           \
                        {segments, H, K, D, scale, window});                                                           \
    }

FOR_DTYPE(bf16, bf16)
FOR_DTYPE(float, f32)
