// Enough of cuBLASLt for what the product asks of it: products of bf16 matrices by columns, the first transposed, into float32, computed
// plainly on the host when the stream comes to it. What it checks are the caller's descriptors; built as libcublasLt.so.13.
#include <cstdint>
#include <cstring>
#include <memory>

extern "C" int cuLaunchHostFunc(void* stream, void (*function)(void*), void* data);

namespace {

constexpr int SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15;
constexpr int COMPUTE_32F = 68, REAL_32F = 0, REAL_16BF = 14, TRANSA = 3, MAX_WORKSPACE = 1;
constexpr uint64_t ALGORITHM = 0x5eed;

struct Layout {
  int type;
  uint64_t rows, cols;
  int64_t stride;
};
struct Description {
  int compute, scale, transposed_a;
};
struct Preference {
  uint64_t workspace;
};
struct Heuristic {
  uint64_t algorithm[8];
  uint64_t workspace;
  int state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(Heuristic) == 96);

struct Work {
  const uint16_t *w, *x;
  float* y;
  Layout wl, xl, yl;
};

float widen(uint16_t bf16) {
  uint32_t bits = static_cast<uint32_t>(bf16) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// y (rows of w's transpose, columns of x) by columns.
void run(void* data) {
  std::unique_ptr<Work> work(static_cast<Work*>(data));
  for (uint64_t t = 0; t < work->yl.cols; t++) {
    for (uint64_t o = 0; o < work->yl.rows; o++) {
      float sum = 0;
      for (uint64_t k = 0; k < work->wl.rows; k++) {
        sum += widen(work->w[o * work->wl.stride + k]) * widen(work->x[t * work->xl.stride + k]);
      }
      work->y[t * work->yl.stride + o] = sum;
    }
  }
}

bool fit(const Description* d, const Layout* w, const Layout* x, const Layout* y) {
  return d->compute == COMPUTE_32F && d->scale == REAL_32F && d->transposed_a == 1 && w->type == REAL_16BF && x->type == REAL_16BF &&
         y->type == REAL_32F && w->rows == x->rows && w->cols == y->rows && x->cols == y->cols && w->stride >= int64_t(w->rows) &&
         x->stride >= int64_t(x->rows) && y->stride >= int64_t(y->rows);
}

}  // namespace

extern "C" {

int cublasLtCreate(void** handle) {
  *handle = new int(1);
  return SUCCESS;
}

int cublasLtDestroy(void* handle) {
  delete static_cast<int*>(handle);
  return SUCCESS;
}

int cublasLtMatmulDescCreate(void** description, int compute, int scale) {
  *description = new Description{compute, scale, 0};
  return SUCCESS;
}

int cublasLtMatmulDescSetAttribute(void* description, int attribute, const void* value, size_t bytes) {
  if (attribute != TRANSA || bytes != sizeof(int)) {
    return INVALID_VALUE;
  }
  std::memcpy(&static_cast<Description*>(description)->transposed_a, value, bytes);
  return SUCCESS;
}

int cublasLtMatrixLayoutCreate(void** layout, int type, uint64_t rows, uint64_t cols, int64_t stride) {
  *layout = new Layout{type, rows, cols, stride};
  return SUCCESS;
}

int cublasLtMatmulPreferenceCreate(void** preference) {
  *preference = new Preference{0};
  return SUCCESS;
}

int cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* value, size_t bytes) {
  if (attribute != MAX_WORKSPACE || bytes != sizeof(uint64_t)) {
    return INVALID_VALUE;
  }
  std::memcpy(&static_cast<Preference*>(preference)->workspace, value, bytes);
  return SUCCESS;
}

int cublasLtMatmulAlgoGetHeuristic(void*, void* description, void* w, void* x, void* c, void* y, void* preference, int asked,
                                   Heuristic* found, int* count) {
  if (asked < 1 || c != y || static_cast<Preference*>(preference)->workspace == 0 ||
      !fit(static_cast<Description*>(description), static_cast<Layout*>(w), static_cast<Layout*>(x), static_cast<Layout*>(y))) {
    *count = 0;
    return NOT_SUPPORTED;
  }
  *found = Heuristic{{ALGORITHM}, 0, SUCCESS, 1.f, {}};
  *count = 1;
  return SUCCESS;
}

int cublasLtMatmul(void* handle, void* description, const float* alpha, const void* w, void* wl, const void* x, void* xl, const float* beta,
                   const void* c, void*, void* y, void* yl, const Heuristic* algorithm, void* workspace, size_t workspace_bytes,
                   void* stream) {
  if (handle == nullptr || *alpha != 1 || *beta != 0 || c != y || algorithm->algorithm[0] != ALGORITHM || workspace == nullptr ||
      workspace_bytes == 0 ||
      !fit(static_cast<Description*>(description), static_cast<Layout*>(wl), static_cast<Layout*>(xl), static_cast<Layout*>(yl))) {
    return INVALID_VALUE;
  }
  auto* work = new Work{static_cast<const uint16_t*>(w), static_cast<const uint16_t*>(x), static_cast<float*>(y),
                        *static_cast<Layout*>(wl),       *static_cast<Layout*>(xl),       *static_cast<Layout*>(yl)};
  return cuLaunchHostFunc(stream, run, work) == 0 ? SUCCESS : INVALID_VALUE;
}

}  // extern "C"
