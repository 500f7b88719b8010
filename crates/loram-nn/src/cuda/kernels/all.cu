// All kernels as one module.
#include "activation.cu"
#include "attention.cu"
#include "elementwise.cu"
#include "loss.cu"
#include "norm.cu"
#include "optim.cu"
#include "rope.cu"
#include "rows.cu"
