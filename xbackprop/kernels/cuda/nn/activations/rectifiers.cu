// The derivative of ReLU, told by its output.
#include "activations.cuh"
#include "elementwise.cuh"
