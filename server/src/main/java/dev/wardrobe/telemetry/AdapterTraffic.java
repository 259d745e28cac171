package dev.wardrobe.telemetry;

import dev.wardrobe.telemetry.RequestReport.Answering;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Requests and tokens by adapter, for those with the most traffic; the others are counted together.
 * So the number of names is bounded, whatever is asked for: names make time series, and those cost
 * whoever keeps them.
 *
 * <p>A name without a place is tried out: its requests are counted apart, for so many names at a
 * time (Space-Saving; Metwally et al., 2005), and when they are more than those of the least of the
 * named ones it takes that one's place, whose counts go to the others'. So {@link #OTHER}'s counts
 * only grow, and a name's begin at 0 when it gets a place.
 */
final class AdapterTraffic {
  static final String BASE = "_base";
  static final String OTHER = "_other";

  /** After so many requests what was counts half. */
  private static final int HALF_LIFE = 10_000;

  /** What one name came to. */
  record Row(String adapter, long requests, long failures, long promptTokens, long tokens) {}

  private static final class Counts {
    long requests;
    long failures;
    long promptTokens;
    long tokens;

    /** Recent requests, by which places are given. */
    double weight;

    void add(RequestReport report) {
      requests++;
      failures += report.answered() ? 0 : 1;
      promptTokens += report.promptTokens();
      tokens += report.generatedTokens();
    }

    void add(Counts other) {
      requests += other.requests;
      failures += other.failures;
      promptTokens += other.promptTokens;
      tokens += other.tokens;
    }
  }

  private final int places;

  // Guarded by this.
  private final Map<String, Counts> named = new LinkedHashMap<>();
  private final Map<String, Double> candidates = new HashMap<>();
  private final Counts base = new Counts();
  private final Counts other = new Counts();
  private int sinceHalved;

  /**
   * @param places most names
   */
  AdapterTraffic(int places) {
    this.places = places;
  }

  /** Counts a request for each of its adapters. One that came not so far is counted as other. */
  synchronized void add(RequestReport report) {
    if (report.adapters().isEmpty()) {
      (report.asked().isEmpty() ? base : other).add(report);
    }
    for (Answering adapter : report.adapters()) {
      of(adapter.name()).add(report);
    }
    if (++sinceHalved >= HALF_LIFE) {
      sinceHalved = 0;
      named.values().forEach(counts -> counts.weight /= 2);
      candidates.replaceAll((_, weight) -> weight / 2);
    }
  }

  private Counts of(String name) {
    Counts counts = named.get(name);
    if (counts == null && named.size() < places) {
      counts = new Counts();
      named.put(name, counts);
    }
    if (counts == null) {
      counts = candidate(name);
    }
    counts.weight++;
    return counts;
  }

  private Counts candidate(String name) {
    double weight = 1;
    Double tried = candidates.remove(name);
    if (tried != null) {
      weight += tried;
    } else if (candidates.size() >= places) {
      String least = least(candidates);
      weight += candidates.getOrDefault(least, 0.0);
      candidates.remove(least);
    }
    Map<String, Double> weights = new HashMap<>();
    named.forEach((each, counts) -> weights.put(each, counts.weight));
    String least = least(weights);
    if (weight <= weights.getOrDefault(least, 0.0)) {
      candidates.put(name, weight);
      return other;
    }
    Counts gone = named.remove(least);
    if (gone != null) {
      other.add(gone);
      candidates.put(least, gone.weight);
    }
    Counts counts = new Counts();
    counts.weight = weight - 1;
    named.put(name, counts);
    return counts;
  }

  private static String least(Map<String, Double> weights) {
    return weights.entrySet().stream().min(Map.Entry.comparingByValue()).orElseThrow().getKey();
  }

  /** What there was so far: of the base, of the others, then by name. */
  synchronized List<Row> rows() {
    List<Row> rows = new ArrayList<>();
    rows.add(row(BASE, base));
    rows.add(row(OTHER, other));
    named.forEach((name, counts) -> rows.add(row(name, counts)));
    return rows;
  }

  private static Row row(String name, Counts counts) {
    return new Row(name, counts.requests, counts.failures, counts.promptTokens, counts.tokens);
  }
}
