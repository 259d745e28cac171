package dev.wardrobe.client.load;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Function;
import java.util.function.ToDoubleFunction;
import java.util.stream.Stream;

/**
 * All runs of one case, by round: cases take turns, so that a round of all of them saw the same
 * machine.
 */
public final class LoadResult {
  private final LoadCase of;
  private final List<List<LoadRun>> rounds = new ArrayList<>();

  public LoadResult(LoadCase of) {
    this.of = of;
  }

  public LoadCase of() {
    return of;
  }

  /** Adds a run; the last one of a round counts, and those before it were disturbed. */
  public void add(int round, LoadRun run) {
    while (rounds.size() <= round) {
      rounds.add(new ArrayList<>());
    }
    rounds.get(round).add(run);
  }

  /** All runs, in the order in which they were made. */
  public List<LoadRun> all() {
    return rounds.stream().flatMap(List::stream).toList();
  }

  /** Each round's run that counts. */
  private List<LoadRun> last() {
    return rounds.stream().map(List::getLast).toList();
  }

  /** Whether any round's run was undisturbed. */
  public boolean undisturbed() {
    return last().stream().anyMatch(LoadRun::undisturbed);
  }

  /** The runs that count: the undisturbed ones, or all where there are none. */
  public List<LoadRun> counted() {
    boolean any = undisturbed();
    return last().stream().filter(run -> run.undisturbed() || !any).toList();
  }

  /** A quantity's values over the runs that count, ascending. */
  public double[] values(ToDoubleFunction<LoadRun> quantity) {
    return counted().stream().mapToDouble(quantity).sorted().toArray();
  }

  public double median(ToDoubleFunction<LoadRun> quantity) {
    return median(values(quantity));
  }

  /**
   * This case's quantity over another's, round by round: the median of the ratios over rounds in
   * which both were undisturbed, or over all where there are none. NaN without any.
   */
  public double ratioTo(LoadResult other, ToDoubleFunction<LoadRun> quantity) {
    return median(ratiosTo(other, quantity));
  }

  /** The rounds' ratios, ascending. */
  public double[] ratiosTo(LoadResult other, ToDoubleFunction<LoadRun> quantity) {
    List<LoadRun> mine = last();
    List<LoadRun> theirs = other.last();
    List<Double> clean = new ArrayList<>();
    List<Double> all = new ArrayList<>();
    for (int i = 0; i < Math.min(mine.size(), theirs.size()); i++) {
      double ratio = quantity.applyAsDouble(mine.get(i)) / quantity.applyAsDouble(theirs.get(i));
      all.add(ratio);
      if (mine.get(i).undisturbed() && theirs.get(i).undisturbed()) {
        clean.add(ratio);
      }
    }
    return (clean.isEmpty() ? all : clean)
        .stream().mapToDouble(Double::doubleValue).sorted().toArray();
  }

  private static double median(double[] ascending) {
    if (ascending.length == 0 || Arrays.stream(ascending).anyMatch(Double::isNaN)) {
      return Double.NaN;
    }
    int middle = ascending.length / 2;
    return ascending.length % 2 == 1
        ? ascending[middle]
        : (ascending[middle - 1] + ascending[middle]) / 2;
  }

  /** Durations of all runs that count, together. */
  public Samples together(Function<LoadRun, Samples> durations) {
    Samples all = new Samples();
    counted().stream().map(durations).forEach(all::addAll);
    return all;
  }

  /** Failures of all runs, those that do not count included, by status. */
  public Map<String, Integer> errors() {
    Map<String, Integer> errors = new TreeMap<>();
    for (LoadRun run : all()) {
      Stream.of(run.load(), run.guests())
          .forEach(seen -> seen.errors().forEach((what, n) -> errors.merge(what, n, Integer::sum)));
      if (run.unfinished() > 0) {
        errors.merge("unfinished", run.unfinished(), Integer::sum);
      }
    }
    return errors;
  }

  /** What the first failure said, or nothing. */
  public String firstError() {
    return all().stream()
        .flatMap(run -> Stream.of(run.load().firstError(), run.guests().firstError()))
        .filter(message -> !message.isEmpty())
        .findFirst()
        .orElse("");
  }
}
