// Softmax attention over a pack's segments, forward and backward, without padding or a matrix of scores in memory.
// A segment's queries are its own tokens; its keys are its row's prompt (unless it begins the row) and then its own,
// so query i sees all keys up to its own: `Segments` in data/pack.py. Scores and sums are float32.
// Names: T tokens, S segments, H heads, K key-value heads, D head size. Shapes of scratch are written where it is cut.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <omp.h>

#include "products.h"

namespace {

constexpr int64_t QUERIES = 48;  // queries of one tile: up to some thousand keys, its scores stay in the second cache

struct Segment {
    int64_t begin, count;  // its own tokens
    int64_t row, before;   // its row's first token, and how many of the row's tokens are keys before its own
    int64_t keys() const { return before + count; }
    int64_t token(int64_t key) const { return key < before ? row + key : begin + key - before; }
};

struct Shape {
    int64_t S, H, K, D;
    float scale;
    int64_t window;
    int64_t size() const { return round_up(D, WIDE); }
};

// Numbers [T, heads, D]; those of a head lie side by side.
template <class S> struct View {
    const S *x;
    int64_t token, head;
};

// One head of a segment's keys, or of whatever lies at their tokens; its numbers are filled up to `size` with zeros.
// `line`, `lines` and `both` are room for one row, two, and two side by side.
template <class F, class S> struct Operand {
    using Number = typename F::Number;
    using Word = typename F::Word;
    const S *x;
    int64_t stride, count, D, size;
    Segment tokens;

    Operand(View<S> view, int64_t head, Segment tokens, const Shape &shape)
        : x(view.x + head * view.head), stride(view.token), count(tokens.keys()), D(shape.D), size(shape.size()),
          tokens(tokens) {}

    void row(int64_t i, Number *to) const {  // behind the last one: zeros
        const int64_t known = i < count ? D : 0;
        if (known) convert(x + tokens.token(i) * stride, to, D);
        std::memset((void *)(to + known), 0, (size - known) * sizeof(Number));
    }

    // A left operand by rows: [count][size].
    Left<F> rows(Number *to) const {
        for (int64_t i = 0; i < count; i++) row(i, to + i * size);
        return {as_words(to), size / F::steps, 1};
    }

    // A right operand whose columns are the tokens: [tokens / 16][size / steps][16].
    Right<F> columns(Word *to, Number *line) const {
        const int64_t words = size / F::steps;
        for (int64_t i = 0; i < round_up(count, WIDE); i++) {
            row(i, line);
            Word *panel = to + i / WIDE * words * WIDE + i % WIDE;
            const Word *from = as_words(line);
            for (int64_t d = 0; d < words; d++) panel[d * WIDE] = from[d];
        }
        return {to, words * WIDE};
    }

    // A right operand whose columns are the head's numbers: [size / 16][tokens / steps][16].
    Right<F> panels(Word *to, Number *lines, Word *both) const {
        const int64_t steps = round_up(count, F::steps) / F::steps, panel = steps * WIDE;
        for (int64_t i = 0; i < steps; i++) {
            for (int64_t j = 0; j < F::steps; j++) row(i * F::steps + j, lines + j * size);
            interleave(lines, lines + size, both, size);
            for (int64_t d = 0; d < size; d += WIDE)
                std::memcpy(to + d / WIDE * panel + i * WIDE, both + d, WIDE * sizeof(Word));
        }
        return {to, panel};
    }
};

// ---- segments -----------------------------------------------------------------------------------------------------

struct Row {
    int64_t first, stop;   // its segments
    int64_t begin, count;  // its tokens
    double work;
};

struct Cut {
    std::vector<Segment> segments;
    std::vector<Row> rows;
    int64_t longest = 0, longest_row = 0;  // keys of a segment, in whole panels; tokens of a row
    int64_t widest;                        // keys of a tile

    Cut(const int32_t *queries, const int32_t *keys, const Shape &shape) {
        for (int64_t s = 0; s < shape.S; s++) {
            const int64_t begin = queries[s], count = queries[s + 1] - begin, before = keys[s + 1] - keys[s] - count;
            if (before == 0) rows.push_back({s, s, begin, 0, 0});
            Row &row = rows.back();
            segments.push_back({begin, count, row.begin, before});
            row.stop = s + 1, row.count += count, row.work += double(count) * double(before + before + count);
            longest = std::max(longest, round_up(before + count, WIDE)), longest_row = std::max(longest_row, row.count);
        }
        widest = std::min(longest, round_up(std::min(longest, shape.window) + QUERIES, WIDE) + WIDE);
        // The longest first, so that no thread is left alone with it at the end.
        std::sort(rows.begin(), rows.end(), [](const Row &a, const Row &b) { return a.work > b.work; });
    }
};

// Some queries of a segment and the keys that any of them sees, in whole panels: [from, to).
struct Tile {
    Segment queries;
    int64_t last, window;  // the last key that the first query sees
    int64_t from, to, span;

    Tile(const Segment &segment, int64_t first, int64_t window)
        : queries{segment.begin + first, std::min(QUERIES, segment.count - first), 0, 0}, last(segment.before + first),
          window(window), from(first_key(0) / WIDE * WIDE), to(round_up(last + queries.count, WIDE)), span(to - from) {}

    // The first key that query m sees. `from` follows from it, so that no row begins before its memory.
    int64_t first_key(int64_t m) const { return std::max(int64_t(0), last + m + 1 - window); }
    // What query m sees, counted from `from`: [low, high), within the row whatever else may be wrong.
    int64_t low(int64_t m) const { return std::clamp(first_key(m) - from, int64_t(0), high(m)); }
    int64_t high(int64_t m) const { return std::min(last + m + 1 - from, span); }
    // Steps of a product over the keys, of which there are `keys`.
    template <class F> int64_t steps(int64_t keys) const {
        return (std::min(to, round_up(keys, F::steps)) - from) / F::steps;
    }

    template <class N> void clear_unseen(int64_t m, N *row) const {
        std::memset((void *)row, 0, low(m) * sizeof(N));
        std::memset((void *)(row + high(m)), 0, (span - high(m)) * sizeof(N));
    }
};

// exp(scale * (x - the highest)) of a row's scores, over them: their sum, and in `highest` what was taken off. The
// scale is positive. The sum and its rounding to bfloat16 are two loops, for gcc makes no vectors of both in one.
inline float softmax_row(float *__restrict x, int64_t count, float scale, float &highest) {
    float most = std::numeric_limits<float>::lowest(), sum = 0;
    const bool broken = any_broken(x, count);
    for (int64_t j = 0; j < count; j++) most = std::max(most, x[j]);
    for (int64_t j = 0; j < count; j++) {
        x[j] = exp_of((x[j] - most) * scale);
        sum += x[j];
    }
    highest = most;
    if (broken) store_nan(sum);
    return sum;
}

// The weights once more, and the gradient of the scores from that of the weights, whose weighted mean is `mean`.
template <class N>
void weigh_again(const float *__restrict x, const float *__restrict slope, N *__restrict weight, N *__restrict change,
                 int64_t count, float scale, float normaliser, float mean) {
    for (int64_t j = 0; j < count; j++) {
        const float w = exp_of(std::min(x[j] * scale - normaliser, 0.0f));
        store(weight[j], w);
        store(change[j], w * (slope[j] - mean) * scale);
    }
}

// ---- forward ------------------------------------------------------------------------------------------------------

// What one thread needs to attend.
template <class S> struct Forward {
    using F = typename FormatOf<S>::type;
    const View<S> query, key, value;
    S *const out;              // [T, H, D]
    float *const normaliser;   // [T, H]: the log of each softmax's sum
    const Shape shape;
    const int64_t size;
    Scratch<typename F::Word> key_columns, value_panels, both;
    Scratch<typename F::Number> lines, tile_query, weights;
    Scratch<float> scores, mixed;

    Forward(View<S> query, View<S> key, View<S> value, S *out, float *normaliser, Shape shape, const Cut &cut)
        : query(query), key(key), value(value), out(out), normaliser(normaliser), shape(shape), size(shape.size()),
          key_columns(cut.longest * size / F::steps), value_panels(cut.longest * size / F::steps), both(size),
          lines(2 * size), tile_query(QUERIES * size), weights(QUERIES * cut.widest), scores(QUERIES * cut.widest),
          mixed(QUERIES * size) {}

    void segment(const Segment &segment, int64_t k) {
        const Right<F> keys = Operand<F, S>(key, k, segment, shape).columns(key_columns, lines);
        const Right<F> values = Operand<F, S>(value, k, segment, shape).panels(value_panels, lines, both);
        const int64_t shared = shape.H / shape.K;
        for (int64_t h = k * shared; h < (k + 1) * shared; h++)
            for (int64_t first = 0; first < segment.count; first += QUERIES)
                tile(Tile(segment, first, shape.window), h, segment.keys(), keys, values);
    }

    void tile(const Tile &tile, int64_t h, int64_t total, Right<F> keys, Right<F> values) {
        const int64_t count = tile.queries.count, span = tile.span;
        const Left<F> queries = Operand<F, S>(query, h, tile.queries, shape).rows(tile_query);
        product<F>(count, span, size / F::steps, queries, keys.column(tile.from), scores, span, false);
        float inverse[QUERIES];
        for (int64_t m = 0; m < count; m++) {
            float *x = scores + m * span + tile.low(m), highest;
            const int64_t seen = tile.high(m) - tile.low(m);
            const float sum = softmax_row(x, seen, shape.scale, highest);
            convert(x, weights + m * span + tile.low(m), seen);
            tile.clear_unseen(m, weights + m * span);
            inverse[m] = 1 / sum;
            normaliser[tile.queries.token(m) * shape.H + h] = highest * shape.scale + std::log(sum);
        }
        const Left<F> by_query{as_words(weights.data), span / F::steps, 1};
        product<F>(count, size, tile.steps<F>(total), by_query, values.step(tile.from / F::steps), mixed, size, false);
        for (int64_t m = 0; m < count; m++) {
            S *to = out + (tile.queries.token(m) * shape.H + h) * shape.D;
            for (int64_t d = 0; d < shape.D; d++) store(to[d], mixed[m * size + d] * inverse[m]);
        }
    }
};

template <class S>
void attend(View<S> query, View<S> key, View<S> value, const int32_t *queries, const int32_t *keys, S *out,
            float *normaliser, Shape shape) {
    const Cut cut(queries, keys, shape);
    const int64_t tasks = int64_t(cut.rows.size()) * shape.K;
#pragma omp parallel num_threads(int(std::min(tasks, int64_t(omp_get_max_threads()))))
    {
        Forward<S> forward(query, key, value, out, normaliser, shape, cut);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < tasks; task++) {
            const Row &row = cut.rows[task / shape.K];
            for (int64_t s = row.first; s < row.stop; s++) forward.segment(cut.segments[s], task % shape.K);
        }
    }
}

// ---- backward -----------------------------------------------------------------------------------------------------

// What one thread needs for the gradients of query, key and value from that of what came out. Weights are made again.
template <class S> struct Backward {
    using F = typename FormatOf<S>::type;
    using Number = typename F::Number;
    using Word = typename F::Word;
    const View<S> query, key, value, grad;
    const S *const out;
    const float *const normaliser;
    S *const grad_query, *const grad_key, *const grad_value;  // [T, H or K, D]
    const Shape shape;
    const int64_t size;
    Scratch<Word> key_columns, key_panels, value_columns, query_panels, grad_panels, by_key, both;
    Scratch<Number> lines, tile_query, tile_grad, weights, changes;
    Scratch<float> scores, slopes, moved;
    Scratch<float> of_keys, of_values;    // gradients of a segment's keys and values
    Scratch<float> row_keys, row_values;  // and of its row's

    Backward(View<S> query, View<S> key, View<S> value, View<S> grad, const S *out, const float *normaliser,
             S *grad_query, S *grad_key, S *grad_value, Shape shape, const Cut &cut)
        : query(query), key(key), value(value), grad(grad), out(out), normaliser(normaliser), grad_query(grad_query),
          grad_key(grad_key), grad_value(grad_value), shape(shape), size(shape.size()),
          key_columns(cut.longest * size / F::steps), key_panels(cut.longest * size / F::steps),
          value_columns(cut.longest * size / F::steps), query_panels(QUERIES * size / F::steps),
          grad_panels(QUERIES * size / F::steps), by_key(QUERIES * cut.widest / F::steps), both(size),
          lines(2 * size), tile_query(QUERIES * size), tile_grad(QUERIES * size), weights(QUERIES * cut.widest),
          changes(QUERIES * cut.widest), scores(QUERIES * cut.widest), slopes(QUERIES * cut.widest),
          moved(QUERIES * size), of_keys(cut.longest * size), of_values(cut.longest * size),
          row_keys(cut.longest_row * size), row_values(cut.longest_row * size) {}

    void row(const Row &row, const Cut &cut, int64_t k) {
        std::fill_n(row_keys.data, row.count * size, 0.0f);
        std::fill_n(row_values.data, row.count * size, 0.0f);
        for (int64_t s = row.first; s < row.stop; s++) segment(cut.segments[s], k);
        for (int64_t t = 0; t < row.count; t++) {
            const int64_t place = ((row.begin + t) * shape.K + k) * shape.D;
            for (int64_t d = 0; d < shape.D; d++) {
                store(grad_key[place + d], row_keys[t * size + d]);
                store(grad_value[place + d], row_values[t * size + d]);
            }
        }
    }

    void segment(const Segment &segment, int64_t k) {
        const Operand<F, S> own(key, k, segment, shape);
        const Right<F> columns = own.columns(key_columns, lines), panels = own.panels(key_panels, lines, both);
        const Right<F> values = Operand<F, S>(value, k, segment, shape).columns(value_columns, lines);
        std::fill_n(of_keys.data, round_up(segment.keys(), WIDE) * size, 0.0f);
        std::fill_n(of_values.data, round_up(segment.keys(), WIDE) * size, 0.0f);
        const int64_t shared = shape.H / shape.K;
        for (int64_t h = k * shared; h < (k + 1) * shared; h++)
            for (int64_t first = 0; first < segment.count; first += QUERIES)
                tile(Tile(segment, first, shape.window), h, segment.keys(), columns, panels, values);
        for (int64_t j = 0; j < segment.keys(); j++) {
            const int64_t place = (segment.token(j) - segment.row) * size;
            for (int64_t d = 0; d < size; d++) {
                row_keys[place + d] += of_keys[j * size + d];
                row_values[place + d] += of_values[j * size + d];
            }
        }
    }

    void tile(const Tile &tile, int64_t h, int64_t total, Right<F> columns, Right<F> panels, Right<F> values) {
        const int64_t count = tile.queries.count, span = tile.span, pairs = round_up(count, F::steps) / F::steps;
        const Operand<F, S> queries(query, h, tile.queries, shape), grads(grad, h, tile.queries, shape);
        const int64_t words = size / F::steps;
        product<F>(count, span, words, queries.rows(tile_query), columns.column(tile.from), scores, span, false);
        product<F>(count, span, words, grads.rows(tile_grad), values.column(tile.from), slopes, span, false);
        for (int64_t m = 0; m < count; m++) {
            const int64_t place = tile.queries.token(m) * shape.H + h, at = m * span + tile.low(m);
            float mean = 0;
            for (int64_t d = 0; d < shape.D; d++)
                mean += load(out[place * shape.D + d]) * load(tile_grad[m * size + d]);
            weigh_again(scores + at, slopes + at, weights + at, changes + at, tile.high(m) - tile.low(m), shape.scale,
                        normaliser[place], mean);
            tile.clear_unseen(m, weights + m * span), tile.clear_unseen(m, changes + m * span);
        }
        const Left<F> by_query{as_words(changes.data), span / F::steps, 1};
        product<F>(count, size, tile.steps<F>(total), by_query, panels.step(tile.from / F::steps), moved, size, false);
        for (int64_t m = 0; m < count; m++) {
            S *to = grad_query + (tile.queries.token(m) * shape.H + h) * shape.D;
            for (int64_t d = 0; d < shape.D; d++) store(to[d], moved[m * size + d]);
        }
        product<F>(span, size, pairs, by_column<F>(weights, count, span, by_key), grads.panels(grad_panels, lines, both),
                   of_values + tile.from * size, size, true);
        product<F>(span, size, pairs, by_column<F>(changes, count, span, by_key), queries.panels(query_panels, lines, both),
                   of_keys + tile.from * size, size, true);
    }
};

template <class S>
void attend_gradient(View<S> query, View<S> key, View<S> value, const int32_t *queries, const int32_t *keys,
                     const S *out, const float *normaliser, View<S> grad, S *grad_query, S *grad_key, S *grad_value,
                     Shape shape) {
    const Cut cut(queries, keys, shape);
    const int64_t tasks = int64_t(cut.rows.size()) * shape.K;
#pragma omp parallel num_threads(int(std::min(tasks, int64_t(omp_get_max_threads()))))
    {
        Backward<S> backward(query, key, value, grad, out, normaliser, grad_query, grad_key, grad_value, shape, cut);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < tasks; task++)
            backward.row(cut.rows[task / shape.K], cut, task % shape.K);
    }
}

}  // namespace

#define FOR_DTYPE(S, suffix)                                                                                           \
    extern "C" void attend_##suffix(const S *query, int64_t q_token, int64_t q_head, const S *key, int64_t k_token,    \
                                    int64_t k_head, const S *value, int64_t v_token, int64_t v_head,                   \
                                    const int32_t *queries, const int32_t *keys, S *out, float *normaliser,            \
                                    float scale, int64_t window, int64_t segments, int64_t H, int64_t K, int64_t D) {  \
        attend<S>({query, q_token, q_head}, {key, k_token, k_head}, {value, v_token, v_head}, queries, keys, out,      \
                  normaliser, {segments, H, K, D, scale, window});                                                     \
    }                                                                                                                  \
    extern "C" void attend_gradient_##suffix(                                                                          \
        const S *query, int64_t q_token, int64_t q_head, const S *key, int64_t k_token, int64_t k_head,                \
        const S *value, int64_t v_token, int64_t v_head, const int32_t *queries, const int32_t *keys, const S *out,    \
        const float *normaliser, const S *grad, int64_t g_token, int64_t g_head, S *grad_query, S *grad_key,           \
        S *grad_value, float scale, int64_t window, int64_t segments, int64_t H, int64_t K, int64_t D) {               \
        attend_gradient<S>({query, q_token, q_head}, {key, k_token, k_head}, {value, v_token, v_head}, queries, keys,  \
                           out, normaliser, {grad, g_token, g_head}, grad_query, grad_key, grad_value,                 \
                           {segments, H, K, D, scale, window});                                                        \
    }

FOR_DTYPE(bf16, bf16)
FOR_DTYPE(float, f32)
