// Sums over the first axis: the gradient of a bias.
#include "columns.cuh"
