package dev.wardrobe.adapter;

import java.util.List;

/**
 * What is known of an adapter while it is not in memory.
 *
 * @param additive whether it only adds to what the base computes, replacing and rescaling nothing
 * @param deviceBytes what it takes in the backend's memory
 */
record Facts(
    String digest,
    String kind,
    int rank,
    int modules,
    long parameters,
    boolean additive,
    long deviceBytes,
    List<String> warnings) {

  static Facts of(Adapter adapter, long deviceBytes) {
    return new Facts(
        adapter.digest(),
        adapter.kind().toString(),
        adapter.rank(),
        adapter.modules(),
        adapter.parameters(),
        adapter.additive(),
        deviceBytes,
        adapter.warnings());
  }
}
