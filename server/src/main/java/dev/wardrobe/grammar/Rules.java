package dev.wardrobe.grammar;

import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** Rules while they are written: numbers that expressions call, and what they stand for. */
final class Rules {
  private static final int MOST = 100_000;

  /**
   * Another rule, a number of times; kept as a counter, where an expression would be written out.
   *
   * @param min at least 1
   */
  record Loop(int body, int min, int max) {}

  /** An {@link Expr}, a {@link Loop}, or null while it is not defined. */
  private final List<@Nullable Object> bodies = new ArrayList<>();

  final Budget budget;

  Rules(Budget budget) {
    this.budget = budget;
  }

  /** A new rule's number; what it stands for is said later. */
  int reserve() throws GrammarException {
    budget.work(100);
    if (bodies.size() == MOST) {
      throw new GrammarException(
          ("it needs more than %d rules; have fewer combinations of anyOf, oneOf and allOf"
                  + " in one another")
              .formatted(MOST));
    }
    bodies.add(null);
    return bodies.size() - 1;
  }

  /** Says what a rule stands for, which must not have the empty string in it. */
  void define(int rule, Expr body) {
    bodies.set(rule, body);
  }

  int add(Expr body) throws GrammarException {
    int rule = reserve();
    define(rule, body);
    return rule;
  }

  /** {@code body} a number of times; by a counter where that is many. */
  Expr repeat(int body, int min, int max) throws GrammarException {
    if (max == 0) {
      return Expr.EMPTY;
    }
    if (Math.max(min, max) <= 16) {
      return Expr.repeat(new Expr.Call(body), min, max);
    }
    if (max == Expr.UNBOUNDED && min <= 1) {
      return Expr.repeat(new Expr.Call(body), min, max);
    }
    int rule = reserve();
    bodies.set(rule, new Loop(body, Math.max(1, min), max));
    Expr call = new Expr.Call(rule);
    return min == 0 ? Expr.optional(call) : call;
  }

  int size() {
    return bodies.size();
  }

  @Nullable Object body(int rule) {
    return bodies.get(rule);
  }

  /** By rule: whether anything can be derived from it. */
  boolean[] productive() throws GrammarException {
    boolean[] productive = new boolean[bodies.size()];
    for (boolean grown = true; grown; ) {
      grown = false;
      for (int i = bodies.size() - 1; i >= 0; i--) {
        Object body = bodies.get(i);
        if (!productive[i] && body != null && productive(body, productive)) {
          productive[i] = true;
          grown = true;
        }
      }
    }
    return productive;
  }

  private boolean productive(Object body, boolean[] known) throws GrammarException {
    budget.work(1);
    return switch (body) {
      case Expr.Sequence sequence -> {
        boolean all = true;
        for (Expr part : sequence.parts()) {
          all = all && productive(part, known);
        }
        yield all;
      }
      case Expr.Choice choice -> {
        boolean any = false;
        for (Expr option : choice.options()) {
          any = any || productive(option, known);
        }
        yield any;
      }
      case Expr.Repeat repeat -> repeat.min() == 0 || productive(repeat.body(), known);
      case Expr.Graph graph -> productive(graph, known);
      case Expr.Language language -> !language.automaton().isEmpty();
      case Expr.Call call -> known[call.rule()];
      case Loop loop -> known[loop.body()];
      default -> true;
    };
  }

  private boolean productive(Expr.Graph graph, boolean[] known) throws GrammarException {
    boolean[] reached = new boolean[graph.size()];
    reached[0] = true;
    for (boolean grown = true; grown; ) {
      grown = false;
      for (Expr.Edge edge : graph.edges()) {
        if (reached[edge.from()] && !reached[edge.to()] && productive(edge.label(), known)) {
          reached[edge.to()] = true;
          grown = true;
        }
      }
    }
    return reached[reached.length - 1];
  }

  /** The rules that may be called from one, itself included. */
  boolean[] reachable(int rule) {
    boolean[] reached = new boolean[bodies.size()];
    List<Integer> work = new ArrayList<>();
    reached[rule] = true;
    work.add(rule);
    while (!work.isEmpty()) {
      Object body = bodies.get(work.removeLast());
      if (body instanceof Loop loop) {
        reach(loop.body(), reached, work);
      } else if (body instanceof Expr expr) {
        reach(expr, reached, work);
      }
    }
    return reached;
  }

  private static void reach(Expr expr, boolean[] reached, List<Integer> work) {
    switch (expr) {
      case Expr.Sequence sequence -> sequence.parts().forEach(e -> reach(e, reached, work));
      case Expr.Choice choice -> choice.options().forEach(e -> reach(e, reached, work));
      case Expr.Repeat repeat -> reach(repeat.body(), reached, work);
      case Expr.Graph graph -> graph.edges().forEach(e -> reach(e.label(), reached, work));
      case Expr.Call call -> reach(call.rule(), reached, work);
      default -> {}
    }
  }

  private static void reach(int rule, boolean[] reached, List<Integer> work) {
    if (!reached[rule]) {
      reached[rule] = true;
      work.add(rule);
    }
  }
}
