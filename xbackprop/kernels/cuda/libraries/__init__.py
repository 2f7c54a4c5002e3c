"""Matrix products through NVIDIA libraries, without transposed copies. Not yet measured on a GPU.

`layout` says how arrays are told to a library that counts by columns, `cublas` is for ordinary
calls, `cublaslt` for those inside a stream capture, where CuPy refuses cuBLAS.
"""
