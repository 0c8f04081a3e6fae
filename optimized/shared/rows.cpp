#include "optimized/shared/rows.hpp"

#include <type_traits>

namespace dsa {

template <class Row>
Index latent_width(const Config& c) {
  const Index R = c.kv_lora_rank, P = c.qk_rope_head_dim;
  return std::is_same_v<Row, e4m3> ? fp8_latent_bytes(R, P) : R + P;
}

template <class Row>
Index index_width(const Config& c) {
  const Index D = c.indexer ? c.indexer->head_dim : 0;
  return std::is_same_v<Row, e4m3> ? fp8_index_bytes(D) : D;
}

template Index latent_width<float>(const Config&);
template Index latent_width<bf16>(const Config&);
template Index latent_width<e4m3>(const Config&);
template Index index_width<float>(const Config&);
template Index index_width<bf16>(const Config&);
template Index index_width<e4m3>(const Config&);

}  // namespace dsa
