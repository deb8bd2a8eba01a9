// bfloat16 and float32 as numbers to compute with, and the exponential of a softmax.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>

namespace {

// Memory of one thread, of any content: whatever is read was written first. It begins where a vector may.
template <class N> struct Scratch {
    std::unique_ptr<N[]> memory;
    N *data;
    explicit Scratch(int64_t count) : memory(new N[count + 64 / sizeof(N)]) {
        data = reinterpret_cast<N *>((reinterpret_cast<uintptr_t>(memory.get()) + 63) / 64 * 64);
    }
    operator N *() { return data; }
};

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

constexpr uint32_t PLACES = 1 << 22;  // thresholds begin again after so many

// Round to one of the two neighbours, up where the dropped 16 bits pass place `i`'s own threshold of 65536: over many
// places that is right on average, and what bfloat16 holds already stays. Rounded to nearest, a weight that starts on
// bfloat16's grid stays where it is until half a step of the grid has gathered. A NaN stays one.
inline void store_spread(float &at, float x, uint32_t) { at = x; }
inline void store_spread(bf16 &at, float x, uint32_t i) {
    uint32_t wide, mixed = i % PLACES * 0x9e3779b1u;
    mixed = (mixed ^ (mixed >> 15)) * 0x85ebca77u;
    mixed ^= mixed >> 13;
    std::memcpy(&wide, &x, 4);
    at.bits = uint16_t((wide & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (wide + (mixed & 0xffff)) >> 16);
}

// Numbers as integers whose order, without the sign, is that of their magnitudes. The compiler is told that there is no
// NaN and no infinity, and makes finite numbers of them: so they are looked for by their bits, from BROKEN up.
constexpr uint32_t BROKEN = 0x7f800000, FORBIDDEN = 0xff800000;  // and minus infinity: a token that cannot come
inline uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}
inline uint32_t bits_of(bf16 x) { return uint32_t(x.bits) << 16; }

// Whether one of the numbers is NaN or plus infinity.
template <class S> bool any_broken(const S *x, int64_t count) {
    uint32_t most = 0;
    for (int64_t i = 0; i < count; i++) {
        const uint32_t bits = bits_of(x[i]);
        most = std::max(most, bits == FORBIDDEN ? 0 : bits & 0x7fffffff);
    }
    return most >= BROKEN;
}

inline void store_nan(float &at) {
    const uint32_t bits = 0x7fc00000;
    std::memcpy(&at, &bits, 4);
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
    uint32_t bits = uint32_t(int32_t(k) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, 4);
    return x < -87.0f ? 0.0f : p * power;
}

}  // namespace
