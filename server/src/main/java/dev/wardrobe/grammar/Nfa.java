package dev.wardrobe.grammar;

import java.util.Arrays;

/**
 * A nondeterministic automaton over bytes and rules, as Thompson builds it: each state has either
 * one range of bytes, or one rule, or up to two edges that take nothing. Such an edge may hold only
 * where nothing was read yet, or only where nothing follows.
 */
final class Nfa {
  static final int FREE = -1;
  static final int AT_START = -2;
  static final int AT_END = -3;
  static final int FINAL = -4;

  /** From here on a state's kind says which rule it calls. */
  private static final int RULES = 1 << 16;

  private final Budget budget;

  /** One of the constants; or a range, as low and high byte; or a rule. */
  private int[] kind = new int[64];

  private int[] next = new int[64];
  private int[] other = new int[64];
  private int size;
  final int start;

  /** An automaton for an expression. */
  Nfa(Expr expr, Budget budget) throws GrammarException {
    this.budget = budget;
    int end = add(FINAL, -1, -1);
    start = build(expr, end);
  }

  int size() {
    return size;
  }

  int kind(int state) {
    return kind[state];
  }

  int next(int state) {
    return next[state];
  }

  int other(int state) {
    return other[state];
  }

  static boolean isBytes(int kind) {
    return kind >= 0 && kind < RULES;
  }

  static boolean isRule(int kind) {
    return kind >= RULES;
  }

  static int rule(int kind) {
    return kind - RULES;
  }

  private int add(int kind, int next, int other) throws GrammarException {
    budget.work(4);
    if (size > 4_000_000) {
      budget.work(Budget.WORK);
    }
    if (size == this.kind.length) {
      this.kind = Arrays.copyOf(this.kind, 2 * size);
      this.next = Arrays.copyOf(this.next, 2 * size);
      this.other = Arrays.copyOf(this.other, 2 * size);
    }
    this.kind[size] = kind;
    this.next[size] = next;
    this.other[size] = other;
    return size++;
  }

  /** A state from which nothing is accepted. */
  private int dead() throws GrammarException {
    return add(FREE, -1, -1);
  }

  private int range(int low, int high, int end) throws GrammarException {
    return add(low << 8 | high, end, -1);
  }

  /** Either of two. */
  private int fork(int one, int other) throws GrammarException {
    return add(FREE, one, other);
  }

  private int build(Expr expr, int end) throws GrammarException {
    return switch (expr) {
      case Expr.Bytes bytes -> range(bytes.low(), bytes.high(), end);
      case Expr.Literal literal -> {
        int at = end;
        for (int i = literal.bytes().length - 1; i >= 0; i--) {
          int b = literal.bytes()[i] & 0xff;
          at = range(b, b, at);
        }
        yield at;
      }
      case Expr.Sequence sequence -> {
        int at = end;
        for (int i = sequence.parts().size() - 1; i >= 0; i--) {
          at = build(sequence.parts().get(i), at);
        }
        yield at;
      }
      case Expr.Choice choice -> {
        if (choice.options().isEmpty()) {
          yield dead();
        }
        int at = build(choice.options().getLast(), end);
        for (int i = choice.options().size() - 2; i >= 0; i--) {
          at = fork(build(choice.options().get(i), end), at);
        }
        yield at;
      }
      case Expr.Repeat repeat -> repeat(repeat.body(), repeat.min(), repeat.max(), end);
      case Expr.Language language -> copy(language.automaton(), end);
      case Expr.Call call -> add(RULES + call.rule(), end, -1);
      case Expr.Graph graph -> graph(graph, end);
      case Expr.Anchor anchor -> add(anchor == Expr.Anchor.START ? AT_START : AT_END, end, -1);
    };
  }

  private int repeat(Expr body, int min, int max, int end) throws GrammarException {
    int at = end;
    if (max == Expr.UNBOUNDED) {
      int loop = add(FREE, -1, end);
      // Apart: adding states may replace the array.
      int first = build(body, loop);
      next[loop] = first;
      at = loop;
    } else {
      for (int i = min; i < max; i++) {
        at = fork(build(body, at), end);
      }
    }
    for (int i = 0; i < min; i++) {
      at = build(body, at);
    }
    return at;
  }

  private int graph(Expr.Graph graph, int end) throws GrammarException {
    int[] heads = new int[graph.size()];
    for (int i = 0; i < heads.length; i++) {
      heads[i] = dead();
    }
    next[heads[heads.length - 1]] = end;
    for (Expr.Edge edge : graph.edges()) {
      int head = heads[edge.from()];
      int step = build(edge.label(), heads[edge.to()]);
      int either = next[head] < 0 ? step : fork(step, next[head]);
      next[head] = either;
    }
    return heads[0];
  }

  private int copy(Automaton automaton, int end) throws GrammarException {
    int[] heads = new int[automaton.size()];
    for (int state = 0; state < heads.length; state++) {
      heads[state] = add(FREE, -1, -1);
    }
    for (int state = 0; state < heads.length; state++) {
      int at = automaton.accepts(state) ? end : -1;
      for (int edge = automaton.from(state); edge < automaton.from(state + 1); edge++) {
        int step = range(automaton.low(edge), automaton.high(edge), heads[automaton.to(edge)]);
        at = at < 0 ? step : fork(step, at);
      }
      next[heads[state]] = at;
    }
    return automaton.size() == 0 ? dead() : heads[0];
  }
}
