package dev.wardrobe.grammar;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * A deterministic automaton over bytes, and, where it is a rule's body, over calls of rules. State
 * 0 is where it starts; every state can be reached, and from every state acceptance can, but for
 * state 0 of an automaton that accepts nothing.
 *
 * <p>Since calls are symbols here, a body with calls is deterministic only as long as no two of its
 * symbols begin alike; {@link Machine} keeps track of all that is possible.
 */
final class Automaton {
  private final BitSet accepting;
  private final int[] from;
  private final int[] label;
  private final int[] to;

  /** Calls' labels are behind all ranges of bytes. */
  private static final int CALLS = 1 << 16;

  private Automaton(BitSet accepting, int[] from, int[] label, int[] to) {
    this.accepting = accepting;
    this.from = from;
    this.label = label;
    this.to = to;
  }

  /** What is known of an automaton while it grows: edges by state. */
  private static final class Draft {
    final BitSet accepting = new BitSet();
    final List<int[]> edges = new ArrayList<>();

    /** Without what cannot be reached, or leads nowhere. */
    Automaton trimmed(Budget budget) throws GrammarException {
      int size = edges.size();
      BitSet useful = coAccessible(size);
      int[] number = new int[size];
      Arrays.fill(number, -1);
      int[] order = new int[Math.max(size, 1)];
      int count = 0;
      if (size > 0) {
        order[count] = 0;
        number[0] = count++;
      }
      for (int i = 0; i < count; i++) {
        int[] out = edges.get(order[i]);
        for (int e = 0; e < out.length; e += 2) {
          int target = out[e + 1];
          if (useful.get(target) && number[target] < 0) {
            order[count] = target;
            number[target] = count++;
          }
        }
      }
      budget.states(count);
      BitSet accepts = new BitSet(count);
      int[] from = new int[count + 1];
      int[] label = new int[16];
      int[] to = new int[16];
      int total = 0;
      for (int i = 0; i < count; i++) {
        from[i] = total;
        accepts.set(i, accepting.get(order[i]));
        int[] out = edges.get(order[i]);
        for (int e = 0; e < out.length; e += 2) {
          if (!useful.get(out[e + 1])) {
            continue;
          }
          if (total == label.length) {
            label = Arrays.copyOf(label, 2 * total);
            to = Arrays.copyOf(to, 2 * total);
          }
          label[total] = out[e];
          to[total++] = number[out[e + 1]];
        }
      }
      from[count] = total;
      return new Automaton(accepts, from, Arrays.copyOf(label, total), Arrays.copyOf(to, total));
    }

    private BitSet coAccessible(int size) {
      int[] degree = new int[size + 1];
      for (int[] out : edges) {
        for (int e = 0; e < out.length; e += 2) {
          degree[out[e + 1] + 1]++;
        }
      }
      for (int i = 0; i < size; i++) {
        degree[i + 1] += degree[i];
      }
      int[] sources = new int[degree[size]];
      int[] next = degree.clone();
      for (int state = 0; state < size; state++) {
        int[] out = edges.get(state);
        for (int e = 0; e < out.length; e += 2) {
          sources[next[out[e + 1]]++] = state;
        }
      }
      BitSet useful = new BitSet(size);
      useful.or(accepting);
      int[] work = Arrays.copyOf(accepting.stream().toArray(), size);
      int left = accepting.cardinality();
      while (left > 0) {
        int state = work[--left];
        for (int i = degree[state]; i < degree[state + 1]; i++) {
          if (!useful.get(sources[i])) {
            useful.set(sources[i]);
            work[left++] = sources[i];
          }
        }
      }
      return useful;
    }
  }

  static Automaton of(Expr expr, Budget budget) throws GrammarException {
    return of(new Nfa(expr, budget), budget);
  }

  /** The subset construction. */
  static Automaton of(Nfa nfa, Budget budget) throws GrammarException {
    return new Subsets(nfa, budget).run();
  }

  private record Key(int[] states) {
    @Override
    public boolean equals(Object other) {
      return other instanceof Key key && Arrays.equals(states, key.states);
    }

    @Override
    public int hashCode() {
      return Arrays.hashCode(states);
    }
  }

  private static final class Subsets {
    private final Nfa nfa;
    private final Budget budget;
    private final Draft draft = new Draft();
    private final Map<Key, Integer> numbers = new HashMap<>();
    private final List<int[]> sets = new ArrayList<>();

    /** Numbers in them. */
    private long kept;

    private final int[] seen;
    private int mark;
    private int[] stack = new int[64];

    Subsets(Nfa nfa, Budget budget) {
      this.nfa = nfa;
      this.budget = budget;
      seen = new int[nfa.size()];
    }

    Automaton run() throws GrammarException {
      // Only here may edges hold that ask for the start, so this set is never met again.
      int[] first = closure(new int[] {nfa.start}, 1, true, false);
      sets.add(first);
      draft.edges.add(new int[0]);
      draft.accepting.set(0, accepts(new int[] {nfa.start}, 1, true));
      for (int i = 0; i < sets.size(); i++) {
        if (sets.size() > Budget.AUTOMATON) {
          budget.states(Budget.STATES + 1L);
        }
        draft.edges.set(i, edges(sets.get(i)));
      }
      return draft.trimmed(budget);
    }

    private boolean accepts(int[] states, int count, boolean start) throws GrammarException {
      for (int state : closure(states, count, start, true)) {
        if (nfa.kind(state) == Nfa.FINAL) {
          return true;
        }
      }
      return false;
    }

    /** The states that read something, or accept, behind edges that take nothing; ascending. */
    private int[] closure(int[] states, int count, boolean start, boolean end)
        throws GrammarException {
      mark++;
      int left = 0;
      for (int i = 0; i < count; i++) {
        left = push(states[i], left);
      }
      int[] found = new int[16];
      int kept = 0;
      while (left > 0) {
        budget.work(1);
        int state = stack[--left];
        int kind = nfa.kind(state);
        boolean open =
            kind == Nfa.FREE || (kind == Nfa.AT_START && start) || (kind == Nfa.AT_END && end);
        if (open) {
          left = push(nfa.next(state), left);
          left = push(nfa.other(state), left);
        } else if (kind != Nfa.AT_START) {
          // One that asks for the end is kept: it may make the set accept.
          if (kept == found.length) {
            found = Arrays.copyOf(found, 2 * kept);
          }
          found[kept++] = state;
        }
      }
      int[] set = Arrays.copyOf(found, kept);
      Arrays.sort(set);
      return set;
    }

    private int push(int state, int left) {
      if (state < 0 || seen[state] == mark) {
        return left;
      }
      seen[state] = mark;
      if (left == stack.length) {
        stack = Arrays.copyOf(stack, 2 * left);
      }
      stack[left] = state;
      return left + 1;
    }

    private int[] edges(int[] set) throws GrammarException {
      budget.work(set.length);
      BitSet cuts = new BitSet(257);
      BitSet rules = new BitSet();
      for (int state : set) {
        int kind = nfa.kind(state);
        if (Nfa.isBytes(kind)) {
          cuts.set(kind >>> 8);
          cuts.set((kind & 0xff) + 1);
        } else if (Nfa.isRule(kind)) {
          rules.set(Nfa.rule(kind));
        }
      }
      int[] out = new int[8];
      int count = 0;
      for (int low = cuts.nextSetBit(0); low >= 0 && low < 256; ) {
        int after = cuts.nextSetBit(low + 1);
        if (after < 0) {
          break;
        }
        int target = target(set, low, -1);
        if (target >= 0) {
          boolean joins =
              count > 0 && out[count - 1] == target && (out[count - 2] & 0xff) == low - 1;
          if (joins) {
            out[count - 2] = (out[count - 2] & 0xff00) | (after - 1);
          } else {
            if (count == out.length) {
              out = Arrays.copyOf(out, 2 * count);
            }
            out[count++] = low << 8 | (after - 1);
            out[count++] = target;
          }
        }
        low = after;
      }
      for (int rule = rules.nextSetBit(0); rule >= 0; rule = rules.nextSetBit(rule + 1)) {
        if (count == out.length) {
          out = Arrays.copyOf(out, 2 * count);
        }
        out[count++] = CALLS + rule;
        out[count++] = target(set, -1, rule);
      }
      return Arrays.copyOf(out, count);
    }

    /** Where a byte, or a call, leads from a set; -1 if nowhere. */
    private int target(int[] set, int b, int rule) throws GrammarException {
      budget.work(set.length);
      int[] moved = new int[set.length];
      int count = 0;
      for (int state : set) {
        int kind = nfa.kind(state);
        boolean fits =
            rule >= 0
                ? Nfa.isRule(kind) && Nfa.rule(kind) == rule
                : Nfa.isBytes(kind) && kind >>> 8 <= b && b <= (kind & 0xff);
        if (fits) {
          moved[count++] = nfa.next(state);
        }
      }
      if (count == 0) {
        return -1;
      }
      int[] closed = closure(moved, count, false, false);
      Key key = new Key(closed);
      Integer known = numbers.get(key);
      if (known != null) {
        return known;
      }
      int number = sets.size();
      numbers.put(key, number);
      sets.add(closed);
      kept += closed.length;
      budget.kept(kept);
      draft.edges.add(new int[0]);
      draft.accepting.set(number, accepts(closed, closed.length, false));
      return number;
    }
  }

  /** What both accept; neither has calls. */
  Automaton and(Automaton other, Budget budget) throws GrammarException {
    return product(other, true, budget);
  }

  /** What this accepts and the other does not; neither has calls. */
  Automaton minus(Automaton other, Budget budget) throws GrammarException {
    return product(other, false, budget);
  }

  private Automaton product(Automaton other, boolean both, Budget budget) throws GrammarException {
    Draft draft = new Draft();
    Map<Long, Integer> numbers = new HashMap<>();
    List<long[]> pairs = new ArrayList<>();
    if (size() == 0) {
      return this;
    }
    // The other's state is -1 where it is dead.
    pairs.add(new long[] {0, other.size() == 0 ? -1 : 0});
    numbers.put(key(pairs.getFirst()), 0);
    for (int i = 0; i < pairs.size(); i++) {
      int left = (int) pairs.get(i)[0];
      int right = (int) pairs.get(i)[1];
      boolean accepts = right >= 0 && other.accepts(right);
      draft.accepting.set(i, accepts(left) && accepts == both);
      int[] out = new int[8];
      int count = 0;
      for (int e = from(left); e < from(left + 1); e++) {
        int low = low(e);
        while (low <= high(e)) {
          budget.work(4);
          int high = high(e);
          int target = -1;
          if (right >= 0) {
            for (int o = other.from(right); o < other.from(right + 1); o++) {
              if (other.low(o) <= low && low <= other.high(o)) {
                target = other.to(o);
                high = Math.min(high, other.high(o));
                break;
              } else if (other.low(o) > low) {
                high = Math.min(high, other.low(o) - 1);
                break;
              }
            }
          }
          if (target >= 0 || !both) {
            long[] pair = {to(e), target};
            Integer number = numbers.get(key(pair));
            if (number == null) {
              number = pairs.size();
              if (number > Budget.AUTOMATON) {
                budget.states(Budget.STATES + 1L);
              }
              numbers.put(key(pair), number);
              pairs.add(pair);
            }
            if (count == out.length) {
              out = Arrays.copyOf(out, 2 * count);
            }
            out[count++] = low << 8 | high;
            out[count++] = number;
          }
          low = high + 1;
        }
      }
      draft.edges.add(Arrays.copyOf(out, count));
    }
    return draft.trimmed(budget);
  }

  private static long key(long[] pair) {
    return pair[0] << 32 | (pair[1] & 0xffffffffL);
  }

  /** The same but for the empty string; state 0 is never met again. */
  Automaton withoutEmpty() {
    BitSet others = (BitSet) accepting.clone();
    others.clear(0);
    return new Automaton(others, from, label, to);
  }

  /**
   * The same with as few states as can be, for an automaton whose texts have a longest one and that
   * has no calls: states that accept the same become one.
   */
  Automaton merged(Budget budget) throws GrammarException {
    int[] order = leavesFirst();
    int[] same = new int[size()];
    Map<List<Integer>, Integer> known = new HashMap<>();
    for (int state : order) {
      List<Integer> signature = new ArrayList<>();
      signature.add(accepts(state) ? 1 : 0);
      for (int edge = from(state); edge < from(state + 1); edge++) {
        int target = same[to(edge)];
        int last = signature.size() - 1;
        boolean joins =
            last > 1
                && signature.get(last) == target
                && (signature.get(last - 1) & 0xff) == low(edge) - 1;
        if (joins) {
          signature.set(last - 1, (signature.get(last - 1) & 0xff00) | high(edge));
        } else {
          signature.add(low(edge) << 8 | high(edge));
          signature.add(target);
        }
      }
      budget.work(signature.size());
      same[state] = known.computeIfAbsent(signature, s -> state);
    }
    Draft draft = new Draft();
    for (int state = 0; state < size(); state++) {
      int[] edges = new int[2 * (from(state + 1) - from(state))];
      for (int i = 0; i < edges.length / 2; i++) {
        edges[2 * i] = label[from(state) + i];
        edges[2 * i + 1] = same[to(from(state) + i)];
      }
      draft.edges.add(edges);
      draft.accepting.set(state, accepts(state));
    }
    return draft.trimmed(budget);
  }

  /** All states, each behind those that its edges lead to. */
  private int[] leavesFirst() {
    int[] order = new int[size()];
    int[] next = from.clone();
    int[] path = new int[size() + 1];
    BitSet seen = new BitSet();
    int count = 0;
    int depth = 0;
    // All states can be reached from the first one.
    seen.set(0);
    while (depth >= 0) {
      int state = path[depth];
      if (next[state] == from(state + 1)) {
        order[count++] = state;
        depth--;
      } else {
        int target = to[next[state]++];
        if (!seen.get(target)) {
          seen.set(target);
          path[++depth] = target;
        }
      }
    }
    return order;
  }

  int size() {
    return from.length - 1;
  }

  /** Whether it accepts nothing. */
  boolean isEmpty() {
    return accepting.isEmpty();
  }

  boolean accepts(int state) {
    return accepting.get(state);
  }

  /** A state's edges are those from here up to where the next state's begin. */
  int from(int state) {
    return from[state];
  }

  boolean isCall(int edge) {
    return label[edge] >= CALLS;
  }

  /** The rule that an edge calls. */
  int rule(int edge) {
    return label[edge] - CALLS;
  }

  int low(int edge) {
    return label[edge] >>> 8;
  }

  int high(int edge) {
    return label[edge] & 0xff;
  }

  int to(int edge) {
    return to[edge];
  }

  /** Where a byte leads, or -1; calls aside. */
  int next(int state, int b) {
    for (int e = from[state]; e < from[state + 1]; e++) {
      if (!isCall(e) && low(e) <= b && b <= high(e)) {
        return to[e];
      }
    }
    return -1;
  }

  /** Whether it accepts all of {@code text}; it has no calls. */
  boolean matches(byte[] text) {
    int state = size() == 0 ? -1 : 0;
    for (int i = 0; i < text.length && state >= 0; i++) {
      state = next(state, text[i] & 0xff);
    }
    return state >= 0 && accepts(state);
  }
}
