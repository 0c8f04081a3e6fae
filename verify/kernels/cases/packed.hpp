// verify/kernels/cases/packed.hpp — the documents of a micro-batch, one after the other, and the
// keys that their rows chose.
#pragma once

#include "verify/kernels/cases/pose.hpp"

namespace dsa::verify::kernels {

using Lengths = std::vector<Index>;

Index rows_of(const Lengths&);
std::string tag_of(const Lengths&);  // "docs5.1.9"

/// begin (T), the first row of each row's document.
Array begin_of(const Lengths&);

/// chosen (T, K): up to K visible keys of every row, ascending, then -1; all where there are no
/// more. `holes`: every third row chose nothing, and the others one key less than they could.
Array draw_chosen(Draw&, const Lengths&, Index K, bool holes);

/// The keys of every row: in["chosen"], or without it every visible one.
std::vector<std::vector<Index>> keys_of_rows(const Case&);
std::vector<std::vector<Index>> visible_keys_of_rows(const Case&);

/// The same as a matrix, as the reference takes them: -1 behind the last.
Tensor<Index, 2> as_chosen(const std::vector<std::vector<Index>>&);

/// The pairs of a query and a key.
double pairs_of(const std::vector<std::vector<Index>>&);
/// At most: of K chosen keys a row, or of every visible one where K is 0.
double pairs_of(const Lengths&, Index K);

/// Makes a row choose what it may not: a key of its future, or one of another document. The refusal
/// names the key.
void choose_wrongly(Case&, Index t, Index slot, std::int32_t key);

}  // namespace dsa::verify::kernels
