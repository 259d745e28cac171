package dev.wardrobe.adapter;

import java.util.List;

/** What is known of an adapter while it is not in memory. */
record Facts(
    String digest, String kind, int rank, int modules, long parameters, List<String> warnings) {

  static Facts of(Adapter adapter) {
    return new Facts(
        adapter.digest(),
        adapter.kind().toString(),
        adapter.rank(),
        adapter.modules(),
        adapter.parameters(),
        adapter.warnings());
  }
}
