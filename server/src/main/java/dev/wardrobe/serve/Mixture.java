package dev.wardrobe.serve;

import dev.wardrobe.adapter.Lease;
import dev.wardrobe.engine.AdapterPart;
import dev.wardrobe.v1.AdapterWeight;
import dev.wardrobe.v1.AppliedAdapter;
import dev.wardrobe.v1.GenerateRequest;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** The adapters of a request with their scales: what may be asked for, and what is answered. */
final class Mixture {
  // All of a request's adapters must be in memory at once.
  private static final int MAX_ADAPTERS = 8;
  private static final float MAX_SCALE = 100;

  private Mixture() {}

  /** What a request asks to add to the base; those of scale 0 are left out. */
  static List<Plan.Part> of(GenerateRequest request) throws RequestException {
    return of(
        request.getAdapter(),
        request.hasAdapterScale() ? request.getAdapterScale() : null,
        request.getAdaptersList());
  }

  /**
   * The same from its fields.
   *
   * @param adapter empty if there is none
   * @param scale null if there is none
   */
  static List<Plan.Part> of(String adapter, @Nullable Float scale, List<AdapterWeight> adapters)
      throws RequestException {
    if (!adapters.isEmpty() && !adapter.isEmpty()) {
      throw RequestException.invalid(
          "expected adapter or adapters, got both; give all of them in adapters");
    }
    if (scale != null && adapter.isEmpty()) {
      throw RequestException.invalid(
          "adapter_scale goes with adapter only; %s"
              .formatted(
                  adapters.isEmpty()
                      ? "leave it out, or give adapter"
                      : "give weights in adapters instead"));
    }
    if (adapters.size() > MAX_ADAPTERS) {
      throw RequestException.invalid(
          "adapters: expected at most %d, got %d".formatted(MAX_ADAPTERS, adapters.size()));
    }
    List<Plan.Part> parts = new ArrayList<>();
    if (!adapter.isEmpty()) {
      add(parts, "adapter_scale", adapter, scale == null ? 1 : scale);
    }
    Set<String> names = new HashSet<>();
    for (AdapterWeight each : adapters) {
      if (each.getAdapter().isEmpty()) {
        throw RequestException.invalid(
            "adapters: expected a name or digest in each, got none; the base needs no entry");
      }
      if (!names.add(each.getAdapter())) {
        throw RequestException.invalid(
            "adapters: '%s' is there twice; give it once, with the sum of the weights"
                .formatted(each.getAdapter()));
      }
      add(parts, "adapters", each.getAdapter(), each.hasWeight() ? each.getWeight() : 1);
    }
    return List.copyOf(parts);
  }

  /** The adapters that a request names, whatever else it says of them. */
  static List<String> names(String adapter, List<AdapterWeight> adapters) {
    return adapter.isEmpty()
        ? adapters.stream().map(AdapterWeight::getAdapter).toList()
        : List.of(adapter);
  }

  private static void add(List<Plan.Part> parts, String field, String adapter, float scale)
      throws RequestException {
    // Written so that NaN fails.
    if (!(Math.abs(scale) <= MAX_SCALE)) {
      throw RequestException.invalid(
          "%s: expected a number from -%.0f to %.0f for '%s', got %s"
              .formatted(field, MAX_SCALE, MAX_SCALE, adapter, scale));
    }
    if (scale != 0) {
      parts.add(new Plan.Part(adapter, scale));
    }
  }

  /**
   * What the engine is to add, of the leases of the same index.
   *
   * @throws RequestException if that cannot be added up
   */
  static List<AdapterPart> parts(List<Plan.Part> asked, List<Lease> leases)
      throws RequestException {
    List<AdapterPart> parts = new ArrayList<>();
    Map<String, String> names = new HashMap<>();
    for (int i = 0; i < asked.size(); i++) {
      Lease lease = leases.get(i);
      String name = asked.get(i).adapter();
      float scale = asked.get(i).scale();
      if (!lease.additive() && (asked.size() > 1 || scale != 1)) {
        throw RequestException.invalid(
            ("adapter '%s' replaces or rescales parts of the base (DoRA, biases or"
                    + " modules_to_save), so that it can be used alone, at scale 1, only; got %s")
                .formatted(name, asked.size() > 1 ? asked.size() + " adapters" : "scale " + scale));
      }
      String before = names.put(lease.digest(), name);
      if (before != null) {
        throw RequestException.invalid(
            "adapters: '%s' and '%s' are the same one, %s; give it once, with the sum of the weights"
                .formatted(before, name, lease.digest()));
      }
      parts.add(new AdapterPart(lease, scale));
    }
    return parts;
  }

  /** What a caller is told of them. */
  static List<AppliedAdapter> applied(List<AdapterPart> parts) {
    return parts.stream()
        .map(
            part ->
                AppliedAdapter.newBuilder()
                    .setAdapter(part.lease().name())
                    .setDigest(part.lease().digest())
                    .setScale(part.scale())
                    .build())
        .toList();
  }
}
