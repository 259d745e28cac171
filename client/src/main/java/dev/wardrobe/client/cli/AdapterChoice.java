package dev.wardrobe.client.cli;

import dev.wardrobe.v1.AdapterWeight;
import dev.wardrobe.v1.EmbedRequest;
import dev.wardrobe.v1.GenerateRequest;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * Who answers: adapters, each with what its deltas are multiplied by; none is the base.
 *
 * @param adapters in order
 */
record AdapterChoice(List<AdapterWeight> adapters) {
  static final AdapterChoice BASE = new AdapterChoice(List.of());

  AdapterChoice {
    adapters = List.copyOf(adapters);
  }

  /**
   * Reads {@code NAME} or {@code NAME=WEIGHT}, each an adapter.
   *
   * @throws IllegalArgumentException if one is neither
   */
  static AdapterChoice of(List<String> words) {
    List<AdapterWeight> adapters = new ArrayList<>();
    for (String word : words) {
      int border = word.lastIndexOf('=');
      AdapterWeight.Builder adapter =
          AdapterWeight.newBuilder().setAdapter(border < 0 ? word : word.substring(0, border));
      Float weight = border < 0 ? null : weight(word.substring(border + 1));
      if (adapter.getAdapter().isEmpty() || (border >= 0 && weight == null)) {
        throw new IllegalArgumentException(
            "expected NAME or NAME=WEIGHT, such as support=0.7, got '%s'".formatted(word));
      }
      if (weight != null) {
        adapter.setWeight(weight);
      }
      adapters.add(adapter.build());
    }
    return new AdapterChoice(adapters);
  }

  private static @Nullable Float weight(String text) {
    try {
      return Float.valueOf(text);
    } catch (NumberFormatException e) {
      return null;
    }
  }

  /** Asks for them. */
  void in(GenerateRequest.Builder request) {
    if (adapters.size() > 1) {
      request.addAllAdapters(adapters);
    } else if (adapters.size() == 1) {
      request.setAdapter(adapters.getFirst().getAdapter());
      if (adapters.getFirst().hasWeight()) {
        request.setAdapterScale(adapters.getFirst().getWeight());
      }
    }
  }

  /** Asks for them. */
  void in(EmbedRequest.Builder request) {
    GenerateRequest.Builder asked = GenerateRequest.newBuilder();
    in(asked);
    request.addAllAdapters(asked.getAdaptersList());
    if (asked.hasAdapter()) {
      request.setAdapter(asked.getAdapter());
    }
    if (asked.hasAdapterScale()) {
      request.setAdapterScale(asked.getAdapterScale());
    }
  }

  /** As they were given. */
  @Override
  public String toString() {
    return adapters.stream()
        .map(a -> a.hasWeight() ? a.getAdapter() + "=" + a.getWeight() : a.getAdapter())
        .collect(Collectors.joining(" "));
  }
}
