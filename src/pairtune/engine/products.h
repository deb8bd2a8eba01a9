// Products of small matrices on registers. bfloat16 is multiplied in pairs where the processor has an instruction for
// that, else as float32.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "numbers.h"

namespace {

using Lanes = float __attribute__((vector_size(64)));
constexpr int64_t WIDE = 16;  // floats of a vector
// Panels that a product takes at a time: with six rows, what the registers hold.
#if defined(__AVX512F__)
constexpr int PANELS = 4;
#else
constexpr int PANELS = 1;
#endif

inline int64_t round_up(int64_t count, int64_t of) { return (count + of - 1) / of * of; }

// A number format of operands. A word is what one lane multiplies at a time: `steps` numbers that lie side by side.
// Vectors go by reference: to hand one over by value depends on what the processor has (gcc's -Wpsabi).

struct Single {
    using Number = float;
    using Word = float;
    static constexpr int64_t steps = 1;
    static void multiply(Lanes &sum, Word a, const Lanes &b) { sum += a * b; }
};

#if defined(__AVX512BF16__)
struct Pair {
    using Number = bf16;
    using Word = uint32_t;
    static constexpr int64_t steps = 2;
    static void multiply(Lanes &sum, Word a, const Lanes &b) {
        sum = (Lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(int(a)), (__m512bh)b);
    }
};
template <class S> struct FormatOf { using type = Single; };
template <> struct FormatOf<bf16> { using type = Pair; };
#else
template <class S> struct FormatOf { using type = Single; };
#endif

// The left operand: the word of row m and step k lies at m * row + k * step.
template <class F> struct Left {
    const typename F::Word *words;
    int64_t row, step;
};

// The right operand lies in panels of 16 columns, each [step][16 words].
template <class F> struct Right {
    const typename F::Word *words;
    int64_t panel;  // words from one panel to the next
    Right column(int64_t first) const { return {words + first / WIDE * panel, panel}; }
    Right step(int64_t first) const { return {words + first * WIDE, panel}; }
};

template <class F, int M, int N>
void product_tile(int64_t steps, Left<F> a, Right<F> b, float *c, int64_t stride, bool add) {
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
        for (int n = 0; n < N; n++) std::memcpy(&right[n], b.words + n * b.panel + k * WIDE, sizeof(Lanes));
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            typename F::Word word = a.words[m * a.row + k * a.step];
#pragma GCC unroll 4
            for (int n = 0; n < N; n++) F::multiply(sum[m][n], word, right[n]);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) std::memcpy(c + m * stride + n * WIDE, &sum[m][n], sizeof(Lanes));
}

template <class F, int N>
void product_rows(int64_t rows, int64_t steps, Left<F> a, Right<F> b, float *c, int64_t stride, bool add) {
    for (int64_t m = 0; m < rows; m += 6, a.words += 6 * a.row, c += 6 * stride) switch (rows - m) {
        case 1: product_tile<F, 1, N>(steps, a, b, c, stride, add); break;
        case 2: product_tile<F, 2, N>(steps, a, b, c, stride, add); break;
        case 3: product_tile<F, 3, N>(steps, a, b, c, stride, add); break;
        case 4: product_tile<F, 4, N>(steps, a, b, c, stride, add); break;
        case 5: product_tile<F, 5, N>(steps, a, b, c, stride, add); break;
        default: product_tile<F, 6, N>(steps, a, b, c, stride, add);
        }
}

// c [rows, columns] = a · b, or is added to; `stride` is the distance of its rows.
template <class F>
void product(int64_t rows, int64_t columns, int64_t steps, Left<F> a, Right<F> b, float *c, int64_t stride, bool add) {
    for (int64_t n = 0; n < columns; n += PANELS * WIDE, b = b.column(PANELS * WIDE), c += PANELS * WIDE)
        switch (std::min(int64_t(PANELS), (columns - n) / WIDE)) {
        case 1: product_rows<F, 1>(rows, steps, a, b, c, stride, add); break;
        case 2: product_rows<F, 2>(rows, steps, a, b, c, stride, add); break;
        case 3: product_rows<F, 3>(rows, steps, a, b, c, stride, add); break;
        default: product_rows<F, PANELS>(rows, steps, a, b, c, stride, add);
        }
}

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

// Rows [count][stride] as a left operand by columns: [count / steps][stride] words; the last row's partner is zeros.
template <class F> Left<F> by_column(typename F::Number *rows, int64_t count, int64_t stride, typename F::Word *to) {
    if (count % F::steps) std::memset((void *)(rows + count * stride), 0, stride * sizeof(rows[0]));
    for (int64_t m = 0; m < count; m += F::steps)
        interleave(rows + m * stride, rows + (m + 1) * stride, to + m / F::steps * stride, stride);
    return {to, 1, stride};
}

}  // namespace
