/* What every compiled experiment shares: memory, mathematics, matrix products.

   Floating point is IEEE single precision in a fixed order of operations, so a module
   gives the same bits in every browser and in node. The elementary functions are
   branch-free where they can be, so that the compiler may take four values at a time;
   tests/test_live.py holds each against float64. */

#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define INLINE static inline __attribute__((always_inline))
#define EACH _Pragma("clang loop vectorize(assume_safety)") /* values that don't meet */

typedef float float4 __attribute__((vector_size(16), aligned(4)));
double exp(double), log(double); /* the compiler's own, for powers only */

/* ---- memory: one block, laid out anew whenever a size changes ---------------------- */

extern unsigned char __heap_base;
static unsigned long top;
static int full; /* the browser gave no more memory */

static void *take(long count, long bytes) {
  unsigned long start = (top + 63) & ~63ul;
  top = start + (unsigned long)(count * bytes);
  long missing = (long)((top + 65535) >> 16) - (long)__builtin_wasm_memory_size(0);
  if (missing > 0 && __builtin_wasm_memory_grow(0, missing) == (unsigned long)-1) full = 1;
  return (void *)start;
}

/* ---- mathematics ------------------------------------------------------------------- */

INLINE float from_bits(int bits) { return __builtin_bit_cast(float, bits); }
INLINE int to_bits(float x) { return __builtin_bit_cast(int, x); }
INLINE float gv_max(float a, float b) { return a != a ? a : (b < a ? a : b); }
INLINE float gv_min(float a, float b) { return a != a ? a : (a < b ? a : b); }
INLINE int gv_imax(int a, int b) { return a > b ? a : b; }
INLINE int gv_imin(int a, int b) { return a < b ? a : b; }
INLINE float gv_relu(float x) { return x < 0 ? 0 : x; }
INLINE float gv_sign(float x) { return (float)((x > 0) - (x < 0)); }
INLINE float gv_square(float x) { return x * x; }
INLINE float gv_cube(float x) { return x * x * x; }
INLINE float gv_fmod(float a, float b) { /* of b's sign, as in Python */
  float r = a - __builtin_floorf(a / b) * b;
  return r;
}
INLINE int gv_imod(int a, int b) {
  int r = a % b;
  return r && (r < 0) != (b < 0) ? r + b : r;
}
INLINE int gv_wrap(int i, int size) { return i < 0 ? i + size : i; }

/* e^x: 2^k times a polynomial in what is left, |r| <= ln(2) / 2 (Cephes, expf). */
INLINE float gv_exp(float x) {
  float c = x < -104.f ? -104.f : x > 89.f ? 89.f : x;
  float turned = c * 1.44269504f + 12582912.f; /* 1.5 * 2^23: rounds, bits hold k */
  float k = turned - 12582912.f;
  int power = to_bits(turned) - 0x4b400000;
  float r = c - k * 0.693359375f + k * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  int half = power >> 1; /* in two parts, so that the ends of the range are reached */
  return p * from_bits((half + 127) << 23) * from_bits((power - half + 127) << 23);
}

/* log x: the exponent times ln 2, and a polynomial in the rest (Cephes, logf). */
INLINE float gv_log(float x) {
  int small = x < 1.17549435e-38f;
  int bits = to_bits(small ? x * 8388608.f : x);
  int power = ((bits - 0x3f3504f3) >> 23); /* mantissa in [sqrt(1/2), sqrt(2)) */
  float f = from_bits(bits - (power << 23)) - 1.f;
  float k = (float)power - (small ? 23.f : 0.f), z = f * f;
  float p = 7.0376836292e-2f;
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  float y = p * f * z - 2.12194440e-4f * k - 0.5f * z;
  y = f + y + 0.693359375f * k;
  y = x == 0.f ? -INFINITY : y;
  return x < 0.f ? NAN : x == INFINITY || x != x ? x : y;
}

/* Kahan's: the rounding of 1 + x cancels in the quotient. */
INLINE float gv_log1p(float x) {
  float u = 1.f + x;
  float y = gv_log(u) * (x / (u - 1.f));
  return u == 1.f ? x : x > 1e8f ? gv_log(x) : y;
}

INLINE float gv_expm1(float x) {
  float u = gv_exp(x);
  float y = (u - 1.f) * (x / gv_log(u));
  return u == 1.f ? x : x > 40.f || x < -20.f ? u - 1.f : y;
}

INLINE float gv_tanh(float x) {
  float a = __builtin_fabsf(x), z = x * x;
  float p = -5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  float near = p * z * x + x;
  float far = __builtin_copysignf(1.f - 2.f / (gv_exp(2.f * a) + 1.f), x);
  return a < 0.625f ? near : x != x ? x : far;
}

INLINE float gv_sigmoid(float x) { return 1.f / (1.f + gv_exp(-x)); }

/* Sine of x + shift * pi/2. The quarter turns are taken off in double precision, which
   is exact enough up to 1e8; beyond, the result is some value in [-1, 1]. */
INLINE float gv_sine(float x, int shift) {
  double turned = (double)x * 0.63661977236758134 + 6755399441055744.0; /* 1.5 2^52 */
  double k = turned - 6755399441055744.0;
  int quarter = (int)__builtin_bit_cast(long long, turned) + shift;
  double r = (double)x - k * 1.5707963267341256 - k * 6.0771005065061922e-11;
  r = r > 0.8 ? 0.8 : r < -0.8 ? -0.8 : r;
  double z = r * r;
  double s = r + r * z * (-0.16666666641626524 + z * (8.333329385889463e-3
             + z * (-1.9839334836096632e-4 + z * 2.718311493989822e-6)));
  double c = 1.0 + z * (-0.499999997251031 + z * (4.166662332373906e-2
             + z * (-1.388676377460993e-3 + z * 2.439044879627741e-5)));
  float y = (float)(quarter & 1 ? c : s);
  return __builtin_isinf(x) ? NAN : quarter & 2 ? -y : y;
}
INLINE float gv_sin(float x) { return gv_sine(x, 0); }
INLINE float gv_cos(float x) { return gv_sine(x, 1); }

/* erf: a polynomial near 0 (Cephes, erff), 1 - erfc beyond (Numerical Recipes). */
INLINE float gv_erf(float x) {
  float a = __builtin_fabsf(x), z = x * x;
  float p = 7.853861353153693e-5f;
  p = p * z - 8.010193625184903e-4f;
  p = p * z + 5.188327685732524e-3f;
  p = p * z - 2.685381193529856e-2f;
  p = p * z + 1.128358514861418e-1f;
  p = p * z - 3.761262582423300e-1f;
  p = p * z + 1.128379165726710f;
  float t = 1.f / (1.f + 0.5f * a), q = 0.17087277f;
  q = q * t - 0.82215223f;
  q = q * t + 1.48851587f;
  q = q * t - 1.13520398f;
  q = q * t + 0.27886807f;
  q = q * t - 0.18628806f;
  q = q * t + 0.09678418f;
  q = q * t + 0.37409196f;
  q = q * t + 1.00002368f;
  q = q * t - 1.26551223f;
  float far = __builtin_copysignf(1.f - t * gv_exp(q - z), x);
  return a < 1.f ? p * x : x != x ? x : far;
}

/* a^b in double precision: Adam's 1 - beta^t would lose most of its digits. */
static float gv_pow(float a, float b) {
  if (b == 0.f || a == 1.f) return 1.f;
  float m = (float)exp((double)b * log((double)__builtin_fabsf(a)));
  if (a >= 0.f || a != a) return m;
  if (b != __builtin_truncf(b)) return NAN;
  return b * 0.5f != __builtin_truncf(b * 0.5f) ? -m : m;
}

/* ---- matrix products --------------------------------------------------------------- */

/* C (rows, columns) = A B, with any strides in A and B. B goes through panels of 8
   columns, padded with zeros; 4 rows of A meet a panel in 8 registers. Each sum runs
   along k in order. */
#define PANEL 8
static float *panel;
static int panel_rows;

INLINE void tile(int rows, int width, float *C, int columns, const float *A, int a0,
                 int a1, int inner) {
  float4 sum[4][2] = {};
  const float *b = panel;
  for (int k = 0; k < inner; k++, b += PANEL) {
    float4 left = *(const float4 *)b, right = *(const float4 *)(b + 4);
    for (int r = 0; r < rows; r++) {
      float a = A[r * a0 + k * a1];
      sum[r][0] += a * left;
      sum[r][1] += a * right;
    }
  }
  for (int r = 0; r < rows; r++) {
    if (width == PANEL) {
      *(float4 *)(C + r * columns) = sum[r][0];
      *(float4 *)(C + r * columns + 4) = sum[r][1];
    } else {
      for (int c = 0; c < width; c++) C[r * columns + c] = ((float *)sum[r])[c];
    }
  }
}

static __attribute__((noinline)) void matmul(float *C, int rows, int inner, int columns,
                                             const float *A, int a0, int a1,
                                             const float *B, int b0, int b1) {
  for (int j = 0; j < columns; j += PANEL) {
    int width = columns - j < PANEL ? columns - j : PANEL;
    for (int k = 0; k < inner; k++)
      for (int c = 0; c < PANEL; c++)
        panel[k * PANEL + c] = c < width ? B[k * b0 + (j + c) * b1] : 0.f;
    int i = 0;
    for (; i + 4 <= rows; i += 4)
      tile(4, width, C + i * columns + j, columns, A + i * a0, a0, a1, inner);
    for (; i < rows; i++)
      tile(1, width, C + i * columns + j, columns, A + i * a0, a0, a1, inner);
  }
}
