package dev.wardrobe.grammar;

import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.IdentityHashMap;
import java.util.Map;
import java.util.SortedMap;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * A pushdown automaton over bytes: rules' automata, whose edges read a byte or call a rule.
 *
 * <p>What it may be doing after some bytes is a {@link Frames}: for each position, the positions to
 * return to. All possibilities are followed at once, and those that stand at the same position
 * share one entry, so that a state is never larger than positions times depth, however ambiguous
 * the rules are. States and their successors are made when they are first needed, and kept.
 *
 * <p>From every state acceptance can be reached, and every byte that may come next is one that the
 * vocabulary has a token for: positions that lead nowhere are left out, and so is a call that, as
 * deep as it would be, could not end within {@link #DEEPEST}.
 *
 * <p>May be used from several threads.
 */
final class Machine {
  /** Most rules that are open at once; each level of nesting in a document takes one or two. */
  static final int DEEPEST = 256;

  // Edges of position p that read bytes, and those that call rules, are those from its entry here
  // up to the next one's.
  private final int[] edgeFrom;
  private final int[] edgeLabel;
  private final int[] edgeTo;
  private final int[] callFrom;
  private final int[] callRule;
  private final int[] callTo;
  private final BitSet accepts;

  /** How many more rules must be open at least, for a position's rule to end. */
  private final int[] height;

  /** By rule: where it starts; -1 if nothing can be derived from it. */
  private final int[] start;

  /** By rule: a rule comes after those that begin with a call of it. */
  private final int[] order;

  /** The rules in that order. */
  private final int[] ruleAt;

  /** By position: the loop that it counts, or null. */
  private final Rules.@Nullable Loop[] loops;

  /** By byte: those that no edge tells apart have the same number. */
  private final int[] classes = new int[256];

  private final int classCount;

  /** The largest bound of a loop. */
  private final int largestLoop;

  private final Frames first;

  // Guarded by this.
  private Map<Frames.Content, Frames> known = new HashMap<>();
  private final Map<Long, Frames> unions = new HashMap<>();
  private long bytes;
  private int nextId = 2;
  private volatile int generation;
  private final long mostBytes;

  /** Work that {@link #step} has done, as a walk's measure. */
  static final class Effort {
    long taken;
  }

  /**
   * Puts rules together.
   *
   * @param alphabet the bytes that there are tokens for
   * @param mostBytes from here on, what is known is forgotten
   * @throws GrammarException if nothing can be derived, or a rule begins with a call of itself
   */
  Machine(Rules rules, int root, BitSet alphabet, long mostBytes) throws GrammarException {
    this.mostBytes = mostBytes;
    boolean[] reachable = rules.reachable(root);
    Automaton[] bodies = new Automaton[rules.size()];
    int[] base = new int[rules.size()];
    int count = 0;
    for (int rule = 0; rule < bodies.length; rule++) {
      base[rule] = count;
      if (!reachable[rule]) {
        continue;
      }
      Object body = rules.body(rule);
      if (body instanceof Expr expr) {
        bodies[rule] =
            expr instanceof Expr.Language language
                ? language.automaton()
                : Automaton.of(expr, rules.budget);
        if (rule != root) {
          bodies[rule] = bodies[rule].withoutEmpty();
        }
        count += bodies[rule].size();
      } else {
        count++;
      }
    }
    start = new int[bodies.length];
    Arrays.fill(start, -1);
    accepts = new BitSet(count);
    loops = new Rules.@Nullable Loop[count];
    edgeFrom = new int[count + 1];
    callFrom = new int[count + 1];
    int[] labels = new int[64];
    int[] targets = new int[64];
    int edges = 0;
    int[] called = new int[64];
    int[] returns = new int[64];
    int calls = 0;
    int largest = 0;
    for (int rule = 0; rule < bodies.length; rule++) {
      if (!reachable[rule]) {
        continue;
      }
      start[rule] = base[rule];
      Automaton body = bodies[rule];
      if (body == null) {
        Rules.Loop loop = (Rules.Loop) rules.body(rule);
        if (loop == null) {
          throw new IllegalStateException("rule " + rule + " is not defined");
        }
        loops[base[rule]] = loop;
        largest = Math.max(largest, Math.max(loop.min(), loop.max()));
        edgeFrom[base[rule]] = edges;
        callFrom[base[rule]] = calls;
        continue;
      }
      for (int state = 0; state < body.size(); state++) {
        int position = base[rule] + state;
        accepts.set(position, body.accepts(state));
        edgeFrom[position] = edges;
        callFrom[position] = calls;
        for (int edge = body.from(state); edge < body.from(state + 1); edge++) {
          if (body.isCall(edge)) {
            if (calls == called.length) {
              called = Arrays.copyOf(called, 2 * calls);
              returns = Arrays.copyOf(returns, 2 * calls);
            }
            called[calls] = body.rule(edge);
            returns[calls++] = base[rule] + body.to(edge);
            continue;
          }
          for (int low = alphabet.nextSetBit(body.low(edge));
              low >= 0 && low <= body.high(edge); ) {
            int after = Math.min(alphabet.nextClearBit(low), body.high(edge) + 1);
            if (edges == labels.length) {
              labels = Arrays.copyOf(labels, 2 * edges);
              targets = Arrays.copyOf(targets, 2 * edges);
            }
            labels[edges] = low << 8 | (after - 1);
            targets[edges++] = base[rule] + body.to(edge);
            low = alphabet.nextSetBit(after);
          }
        }
      }
    }
    edgeFrom[count] = edges;
    callFrom[count] = calls;
    edgeLabel = Arrays.copyOf(labels, edges);
    edgeTo = Arrays.copyOf(targets, edges);
    callRule = Arrays.copyOf(called, calls);
    callTo = Arrays.copyOf(returns, calls);
    largestLoop = largest;
    height = heights(rules.budget);
    if (height[start[root]] > DEEPEST) {
      throw new GrammarException("no text is allowed by it");
    }
    order = order(rules.budget);
    classCount = classify();
    ruleAt = new int[start.length];
    for (int rule = 0; rule < start.length; rule++) {
      if (start[rule] >= 0) {
        ruleAt[order[rule]] = rule;
      }
    }
    Step begin = new Step(new Effort());
    begin.open(start[root], 0, Frames.BOTTOM);
    first = begin.close();
  }

  /** By position; more than {@link #DEEPEST} where its rule cannot end. */
  private int[] heights(Budget budget) throws GrammarException {
    int size = edgeFrom.length - 1;
    int[] heights = new int[size];
    Arrays.fill(heights, DEEPEST + 1);
    for (int level = 0; level <= DEEPEST; level++) {
      boolean fixed = true;
      boolean grown = true;
      while (grown) {
        grown = false;
        // Backwards, since most edges lead forwards.
        for (int p = size - 1; p >= 0; p--) {
          if (heights[p] > DEEPEST && ends(p, level, heights, budget)) {
            heights[p] = level;
            grown = true;
            fixed = false;
          }
        }
      }
      if (fixed && level > 0) {
        break;
      }
    }
    return heights;
  }

  /** Whether a position's rule can end with so many more rules open. */
  private boolean ends(int p, int level, int[] heights, Budget budget) throws GrammarException {
    Rules.Loop loop = loops[p];
    if (loop != null) {
      return startHeight(loop.body(), heights) < level;
    }
    if (accepts.get(p)) {
      return true;
    }
    budget.work(edgeFrom[p + 1] - edgeFrom[p] + callFrom[p + 1] - callFrom[p]);
    for (int e = edgeFrom[p]; e < edgeFrom[p + 1]; e++) {
      if (heights[edgeTo[e]] <= level) {
        return true;
      }
    }
    for (int c = callFrom[p]; c < callFrom[p + 1]; c++) {
      if (startHeight(callRule[c], heights) < level && heights[callTo[c]] <= level) {
        return true;
      }
    }
    return false;
  }

  private int startHeight(int rule, int[] heights) {
    return heights[start[rule]];
  }

  /** Numbers rules so that those that begin with a call of a rule come before it. */
  private int[] order(Budget budget) throws GrammarException {
    int[] state = new int[start.length];
    int[] numbers = new int[start.length];
    int[] path = new int[start.length];
    int[] at = new int[start.length];
    int next = start.length;
    for (int root = 0; root < start.length; root++) {
      if (start[root] < 0 || state[root] != 0) {
        continue;
      }
      int depth = 0;
      path[0] = root;
      at[0] = 0;
      state[root] = 1;
      while (depth >= 0) {
        budget.work(1);
        int rule = path[depth];
        int called = beginsWith(start[rule], at[depth]++);
        if (called < 0) {
          state[rule] = 2;
          numbers[rule] = --next;
          depth--;
        } else if (state[called] == 1) {
          throw new GrammarException(
              "it refers to itself without anything in between, so that no end is in sight");
        } else if (state[called] == 0) {
          state[called] = 1;
          path[++depth] = called;
          at[depth] = 0;
        }
      }
    }
    return numbers;
  }

  /** The rule of a position's {@code n}th call, or -1. */
  private int beginsWith(int position, int n) {
    Rules.Loop loop = loops[position];
    if (loop != null) {
      return n == 0 ? loop.body() : -1;
    }
    int call = callFrom[position] + n;
    return call < callFrom[position + 1] ? callRule[call] : -1;
  }

  private int classify() {
    BitSet cuts = new BitSet(257);
    for (int label : edgeLabel) {
      cuts.set(label >>> 8);
      cuts.set((label & 0xff) + 1);
    }
    int number = 0;
    for (int b = 0; b < 256; b++) {
      if (b > 0 && cuts.get(b)) {
        number++;
      }
      classes[b] = number;
    }
    return number + 1;
  }

  /** The state before the first byte. */
  Frames first() {
    return first;
  }

  /** Bytes of memory that are kept, about. */
  synchronized long bytes() {
    return bytes + 16L * edgeTo.length + 40L * edgeFrom.length;
  }

  /** Counts memory that states' masks take. */
  synchronized void count(long more) {
    bytes += more;
    forget();
  }

  private void forget() {
    if (bytes > mostBytes) {
      known = new HashMap<>();
      unions.clear();
      bytes = 0;
      int last = generation;
      generation = last + 1;
    }
  }

  /** The state after one more byte; {@link Frames#DEAD} if it cannot come. */
  Frames next(Frames state, int b, Effort effort) {
    @Nullable Frames @Nullable [] nexts = state.next;
    if (nexts != null) {
      Frames next = nexts[classes[b]];
      if (next != null) {
        return next;
      }
    }
    return step(state, b, effort);
  }

  private synchronized Frames step(Frames state, int b, Effort effort) {
    if (state.isLast()) {
      return Frames.DEAD;
    }
    Step step = new Step(effort);
    for (int i = 0; i < state.positions.length; i++) {
      int p = state.positions[i];
      for (int e = edgeFrom[p]; e < edgeFrom[p + 1]; e++) {
        if (edgeLabel[e] >>> 8 <= b && b <= (edgeLabel[e] & 0xff)) {
          step.open(edgeTo[e], 0, state.parents[i]);
          break;
        }
      }
    }
    Frames next = step.close();
    @Nullable Frames[] nexts = state.next;
    if (nexts == null) {
      nexts = new Frames[classCount];
      bytes += 16 + 8L * classCount;
      state.next = nexts;
    }
    nexts[classes[b]] = next;
    return next;
  }

  /** The same state among those that are known now, in place of one that was forgotten. */
  Frames renewed(Frames state) {
    return state.generation == generation || state == Frames.DEAD ? state : renew(state);
  }

  private synchronized Frames renew(Frames state) {
    return copy(state, new IdentityHashMap<>(), Integer.MAX_VALUE);
  }

  /**
   * A state that is like this one for tokens of up to {@code longest} bytes: counters are as small
   * as they may be, so that states far from a loop's bounds are the same.
   */
  Frames clamped(Frames state, int longest) {
    if (largestLoop <= longest) {
      return state;
    }
    Frames clamped = state.clamped;
    if (clamped == null || clamped.generation != generation) {
      synchronized (this) {
        clamped = copy(state, new IdentityHashMap<>(), longest);
        state.clamped = clamped;
      }
    }
    return clamped;
  }

  private Frames copy(Frames frames, Map<Frames, Frames> done, int most) {
    if (frames.positions.length == 0) {
      return frames;
    }
    Frames known = done.get(frames);
    if (known != null) {
      return known;
    }
    Collector collector = new Collector(new Effort());
    collector.bottom = frames.bottom;
    for (int i = 0; i < frames.positions.length; i++) {
      long counter = frames.counters[i];
      int need = Math.min(need(counter), most);
      int left = left(counter) == Expr.UNBOUNDED ? Expr.UNBOUNDED : Math.min(left(counter), most);
      collector.add(
          frames.positions[i],
          loops[frames.positions[i]] == null ? 0 : counter(need, left),
          copy(frames.parents[i], done, most));
    }
    Frames copy = collector.frames();
    done.put(frames, copy);
    return copy;
  }

  private static long counter(int need, int left) {
    return (long) need << 32 | (left & 0xffffffffL);
  }

  private static int need(long counter) {
    return (int) (counter >>> 32);
  }

  private static int left(long counter) {
    return (int) counter;
  }

  private Frames union(Frames one, Frames other, Effort effort) {
    if (one == other) {
      return one;
    }
    long key = one.id < other.id ? (long) one.id << 32 | other.id : (long) other.id << 32 | one.id;
    Frames known = unions.get(key);
    if (known != null) {
      return known;
    }
    Collector collector = new Collector(effort);
    collector.addAll(one);
    collector.addAll(other);
    Frames union = collector.frames();
    unions.put(key, union);
    bytes += 60;
    return union;
  }

  /** Entries on their way to be one {@link Frames}; equal positions become one entry. */
  private final class Collector {
    private final Effort effort;
    private int[] positions = new int[4];
    private long[] counters = new long[4];
    private Frames[] parents = new Frames[4];
    private int size;
    boolean bottom;

    Collector(Effort effort) {
      this.effort = effort;
    }

    void addAll(Frames frames) {
      bottom |= frames.bottom;
      for (int i = 0; i < frames.positions.length; i++) {
        add(frames.positions[i], frames.counters[i], frames.parents[i]);
      }
    }

    /** Adds an entry; false if it was there with all of these parents. */
    boolean add(int position, long counter, Frames parent) {
      effort.taken++;
      int low = 0;
      int high = size;
      while (low < high) {
        int middle = (low + high) >>> 1;
        int order = Integer.compare(positions[middle], position);
        if (order == 0) {
          order = Long.compare(counters[middle], counter);
        }
        if (order == 0) {
          Frames both = union(parents[middle], parent, effort);
          boolean grown = both != parents[middle];
          parents[middle] = both;
          return grown;
        } else if (order < 0) {
          low = middle + 1;
        } else {
          high = middle;
        }
      }
      if (size == positions.length) {
        positions = Arrays.copyOf(positions, 2 * size);
        counters = Arrays.copyOf(counters, 2 * size);
        parents = Arrays.copyOf(parents, 2 * size);
      }
      System.arraycopy(positions, low, positions, low + 1, size - low);
      System.arraycopy(counters, low, counters, low + 1, size - low);
      System.arraycopy(parents, low, parents, low + 1, size - low);
      positions[low] = position;
      counters[low] = counter;
      parents[low] = parent;
      size++;
      return true;
    }

    Frames frames() {
      if (size == 0) {
        return bottom ? Frames.BOTTOM : Frames.DEAD;
      }
      Frames frames =
          new Frames(
              bottom,
              Arrays.copyOf(positions, size),
              Arrays.copyOf(counters, size),
              Arrays.copyOf(parents, size),
              generation,
              nextId);
      Frames old = known.putIfAbsent(new Frames.Content(frames), frames);
      if (old != null) {
        return old;
      }
      // Ids are for pairs of states, which are forgotten together with them.
      nextId++;
      bytes += 200 + 20L * size;
      forget();
      return frames;
    }
  }

  /**
   * All that is possible after a byte: rules that end give way to what called them, then calls
   * bring in the rules that they may begin with.
   */
  private final class Step {
    private final Effort effort;
    private final Collector state;

    /** Entries that may have calls, or may end their rule; calls come once all ends are done. */
    private final Collector open;

    boolean bottom;

    Step(Effort effort) {
      this.effort = effort;
      state = new Collector(effort);
      open = new Collector(effort);
    }

    /** Takes in a position that has been reached. */
    void open(int position, long counter, Frames parents) {
      long at = loops[position] != null && counter == 0 ? firstCounter(position) : counter;
      if (parents.depth + heightOf(position, at) > DEEPEST || !open.add(position, at, parents)) {
        return;
      }
      boolean ends = loops[position] == null ? accepts.get(position) : need(at) == 0;
      if (ends) {
        bottom |= parents.bottom;
        for (int i = 0; i < parents.positions.length; i++) {
          open(parents.positions[i], parents.counters[i], parents.parents[i]);
        }
      }
    }

    private long firstCounter(int position) {
      Rules.Loop loop = loops[position];
      return loop == null ? 0 : counter(loop.min(), loop.max());
    }

    private int heightOf(int position, long counter) {
      return loops[position] != null && need(counter) == 0 ? 0 : height[position];
    }

    Frames close() {
      // By rule: those who call it. Rules that may begin with a call come first.
      SortedMap<Integer, Collector> callers = new TreeMap<>();
      for (int i = 0; i < open.size; i++) {
        enter(open.positions[i], open.counters[i], open.parents[i], callers);
      }
      while (!callers.isEmpty()) {
        Map.Entry<Integer, Collector> calling = callers.pollFirstEntry();
        int first = start[ruleAt[calling.getKey()]];
        enter(first, firstCounter(first), calling.getValue().frames(), callers);
      }
      state.bottom = bottom;
      return state.frames();
    }

    /** Notes what a position reads, and what it calls. */
    private void enter(
        int position, long counter, Frames parents, Map<Integer, Collector> callers) {
      if (edgeFrom[position] < edgeFrom[position + 1]) {
        state.add(position, 0, parents);
      }
      Rules.Loop loop = loops[position];
      if (loop != null) {
        int left = left(counter);
        if (left != 0) {
          int need = Math.max(0, need(counter) - 1);
          int after = left == Expr.UNBOUNDED ? left : left - 1;
          if (after == 0) {
            call(loop.body(), parents, callers);
          } else {
            call(loop.body(), position, counter(need, after), parents, callers);
          }
        }
        return;
      }
      for (int c = callFrom[position]; c < callFrom[position + 1]; c++) {
        int back = callTo[c];
        boolean last =
            loops[back] == null
                && accepts.get(back)
                && edgeFrom[back] == edgeFrom[back + 1]
                && callFrom[back] == callFrom[back + 1];
        if (last) {
          call(callRule[c], parents, callers);
        } else {
          call(callRule[c], back, 0, parents, callers);
        }
      }
    }

    private void call(
        int rule, int back, long counter, Frames parents, Map<Integer, Collector> callers) {
      if (parents.depth + heightOf(back, counter) <= DEEPEST
          && parents.depth + 1 + height[start[rule]] <= DEEPEST) {
        callers
            .computeIfAbsent(order[rule], r -> new Collector(effort))
            .add(back, counter, parents);
      }
    }

    /** A call that is the last thing its rule does: whoever called that is returned to. */
    private void call(int rule, Frames parents, Map<Integer, Collector> callers) {
      if (parents.depth + height[start[rule]] <= DEEPEST) {
        callers.computeIfAbsent(order[rule], r -> new Collector(effort)).addAll(parents);
      }
    }
  }
}
