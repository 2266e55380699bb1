/* Rotary frequencies and tables.
 *
 *   f_i = theta^(-2i/n),  angle(t, i) = t f_i
 *
 * llama3 scaling (Llama 3.1): wavelengths above original / low are divided by `factor`, those below
 * original / high are kept, between them the two are mixed linearly in original / wavelength. At
 * thousands of tokens the float32 rounding of f_i alone turns the angle by 1e-4, so each rounding
 * of the PyTorch code is repeated here. */
#include <math.h>

#include "linearize/model/model_internal.h"

static float llama3_scaled(const struct tg_rope *rope, float f)
{
    double low = rope->original_max_positions / rope->low_freq_factor;
    double high = rope->original_max_positions / rope->high_freq_factor;
    float wavelength = (float)(2 * M_PI) / f;
    if (wavelength > (float)low)
        return f / (float)rope->factor;
    if (wavelength < (float)high)
        return f;
    float smooth = (float)rope->original_max_positions / wavelength - (float)rope->low_freq_factor;
    smooth /= (float)(rope->high_freq_factor - rope->low_freq_factor);
    return (1 - smooth) * f / (float)rope->factor + smooth * f;
}

void tg_rope_frequencies(const struct tg_rope *rope, size_t n, float *inv_freq)
{
    for (size_t i = 0; i < n / 2; i++) {
        float exponent = (float)(2 * i) / (float)n;
        float f = 1.0f / (float)pow((double)(float)rope->theta, exponent);
        inv_freq[i] = rope->kind == TG_ROPE_LLAMA3 ? llama3_scaled(rope, f) : f;
    }
}

void tg_rope_table(const float *inv_freq, size_t n, size_t from, size_t to, float *cosines,
                   float *sines)
{
    size_t half = n / 2;
    for (size_t t = from; t < to; t++)
        for (size_t i = 0; i < half; i++) {
            float angle = (float)t * inv_freq[i];
            cosines[t * half + i] = (float)cos((double)angle);
            sines[t * half + i] = (float)sin((double)angle);
        }
}
