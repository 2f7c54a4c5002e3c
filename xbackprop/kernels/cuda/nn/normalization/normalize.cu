// LayerNorm, and every normalization over the last axes.
#include "row_norm.cuh"
#include "columns.cuh"
