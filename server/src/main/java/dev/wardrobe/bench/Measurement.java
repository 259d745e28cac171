package dev.wardrobe.bench;

import java.util.List;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/**
 * All runs of one case.
 *
 * @param kind of what was measured
 * @param streams sequences in a step
 * @param depth tokens of each stream before the timed ones
 * @param prompt timed tokens of a prompt, or of a sequence trained on; 0 where tokens are generated
 * @param generated timed tokens of each stream; 0 where none are
 * @param adapters different adapters in a step
 * @param rank theirs, or 0
 * @param runs in the order they were made
 */
public record Measurement(
    Kind kind,
    int streams,
    int depth,
    int prompt,
    int generated,
    int adapters,
    int rank,
    List<Run> runs) {

  /** What is measured. */
  public enum Kind {
    /** One prompt, in chunks. */
    PREFILL,
    /** One stream from an empty context. */
    DECODE,
    /** One stream behind a long context. */
    DEPTH,
    /** Many streams of the base. */
    BATCH,
    /** Many streams of the base and of different adapters, a step of either in turn. */
    ADAPTERS,
    /** What training a layer and the head takes, operation by operation. */
    TRAINING
  }

  public Measurement {
    runs = List.copyOf(runs);
  }

  /** The median rate in tokens per second; over runs that were undisturbed, if there are any. */
  public double median() {
    return median(rates());
  }

  private static double median(double[] ascending) {
    int middle = ascending.length / 2;
    return ascending.length % 2 == 1
        ? ascending[middle]
        : (ascending[middle - 1] + ascending[middle]) / 2;
  }

  public double min() {
    return rates()[0];
  }

  public double max() {
    double[] rates = rates();
    return rates[rates.length - 1];
  }

  /**
   * This rate over another's that was measured with it, run by run: the median of the ratios, over
   * runs that were undisturbed, if there are any.
   */
  public double ratioTo(Measurement other) {
    return median(
        IntStream.range(0, runs.size())
            .filter(i -> runs.get(i).undisturbed() || !undisturbed())
            .mapToDouble(i -> runs.get(i).rate() / other.runs.get(i).rate())
            .sorted()
            .toArray());
  }

  /** Whether any run was undisturbed. */
  public boolean undisturbed() {
    return runs.stream().anyMatch(Run::undisturbed);
  }

  /** Seconds of the runs that count. */
  public double seconds() {
    return counted().mapToDouble(Run::seconds).sum();
  }

  /** Steps in the runs that count; a prefill is taken as one. */
  public long steps() {
    return counted().count() * Math.max(1, generated);
  }

  /** Costs of operations over the runs that count; empty if nobody asked for them. */
  public List<Cost> costs() {
    List<Cost> sums = List.of();
    for (Run run : counted().toList()) {
      sums = Cost.sum(sums, run.costs());
    }
    return sums;
  }

  private Stream<Run> counted() {
    boolean any = undisturbed();
    return runs.stream().filter(run -> run.undisturbed() || !any);
  }

  /** Ascending. */
  private double[] rates() {
    return counted().mapToDouble(Run::rate).sorted().toArray();
  }
}
