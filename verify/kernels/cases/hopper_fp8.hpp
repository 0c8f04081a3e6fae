// verify/kernels/cases/hopper_fp8.hpp — what a sum of e4m3 products may lose in the tensor cores of
// Hopper.
//
// Their wgmma takes 32 products and what was summed before, shifts all of them to the largest
// exponent among these 33, keeps 13 bits behind the binary point of each, cuts off the rest, adds,
// and cuts the result to 13 bits of fraction again, although it stands in an fp32 register: "14
// bits" with the leading one. Sources, which agree:
//   DeepSeek-V3, arXiv 2412.19437, sections 3.3.2 and 3.5.2: measured on H800;
//   SageAttention2, arXiv 2411.10958: an accumulator of 1 + 8 + 13 bits;
//   MMA-Sim, arXiv 2511.10909 (github.com/microsoft/MMA-Sim, c785138): bit for bit the device's
//     wgmma, 13 bits of alignment and an output "f32_e8m13";
//   Khattak and Mikaitis, arXiv 2512.07004 (north-numerical-computing/MATLAB-tensor-core, b12b5a7):
//     blocks of 32, 10 bits of alignment fewer than fp32's 23, rounding towards zero.
// mma.sync of e4m3 on Hopper is not meant: by MMA-Sim, its sums keep 25 bits.
#pragma once

#include "core/tensor.hpp"

namespace dsa::verify::kernels {

/// A bound of the error of sum_i a[i] b[i], of e4m3 numbers, summed so from zero in blocks of 32 in
/// the order of i. For each block: let M be the largest product of magnitudes (a subnormal counts
/// as 2^-6, because its exponent does) or partial sum, with its error. Nothing below
/// unit = 2^(floor(log2 M) - 13) is kept, so that each of the addends that are no multiples of it
/// loses less than one unit, and the result one of its own. 0 where nothing is lost.
double hopper_fp8_error(const double* a, const double* b, Index n);

}  // namespace dsa::verify::kernels
