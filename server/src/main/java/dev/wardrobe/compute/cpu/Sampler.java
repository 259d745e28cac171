package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Draw;
import dev.wardrobe.compute.NotFiniteException;
import dev.wardrobe.compute.TokenBias;
import java.util.Arrays;

/** Draws and scores tokens; see {@link Draw} for what is applied in which order. */
final class Sampler {
  /** Probabilities are told apart by their leading bits: 32 steps an octave. */
  private static final int BUCKET_SHIFT = 18;

  private static final int BUCKETS = (Float.floatToRawIntBits(1f) >>> BUCKET_SHIFT) + 1;

  private final Kernels kernels;

  Sampler(Kernels kernels) {
    this.kernels = kernels;
  }

  /**
   * Gives the draw its outcome for the logits {@code (vocabulary)} from {@code at} on; false if
   * they are not finite, see {@link NotFiniteException#problem}.
   */
  boolean sample(Draw draw, float[] logits, int at, int vocabulary, Scratch scratch) {
    Draw.Outcome outcome = draw.outcome();
    outcome.set(-1, Float.NaN);
    float max = kernels.largest(logits, at, vocabulary);
    if (!Float.isFinite(max)) {
      return false;
    }
    double logSum = Elementary.log(kernels.sumOfExponentials(logits, at, vocabulary, max, scratch));
    int token = draw.score();
    if (token < 0) {
      token = draw(draw, logits, at, vocabulary, max, scratch);
      if (token < 0) {
        return false;
      }
    }
    if (draw.top() == Draw.ALL) {
      outcome.room(0, vocabulary);
      float[] logprobs = outcome.topLogprobs();
      for (int i = 0; i < vocabulary; i++) {
        logprobs[i] = logprob(logits[at + i], max, logSum);
      }
    } else {
      int count = Math.min(draw.top(), vocabulary);
      outcome.room(count, count);
      int[] tokens = outcome.topTokens();
      float[] logprobs = outcome.topLogprobs();
      top(logits, at, vocabulary, count, tokens);
      for (int i = 0; i < count; i++) {
        logprobs[i] = logprob(logits[at + tokens[i]], max, logSum);
      }
    }
    outcome.set(token, logprob(logits[at + token], max, logSum));
    return true;
  }

  private static float logprob(float logit, float max, double logSum) {
    return (float) ((double) logit - max - logSum);
  }

  private int draw(Draw draw, float[] logits, int at, int vocabulary, float max, Scratch scratch) {
    TokenBias bias = draw.bias();
    boolean penalized = draw.repetition() != 1 || draw.presence() != 0 || draw.frequency() != 0;
    long[] mask = draw.mask();
    float[] z = logits;
    int from = at;
    float largest = max;
    if (penalized || bias != null || mask != null) {
      z = scratch.row(vocabulary);
      from = 0;
      largest = change(draw, logits, at, vocabulary, true, z, scratch);
      if (largest == Float.NEGATIVE_INFINITY && mask != null && bias != null) {
        // What ends the sequence is all that the mask leaves.
        largest = change(draw, logits, at, vocabulary, false, z, scratch);
      }
      if (!Float.isFinite(largest)) {
        return -1;
      }
    }
    if (draw.temperature() == 0) {
      return kernels.above(z, from, 0, vocabulary, Math.nextDown(largest));
    }
    // The candidates' probabilities relative to the largest one's, and unless all are: their ids.
    int count = vocabulary;
    float[] p;
    int[] ids = null;
    if (draw.topK() > 0 && draw.topK() < vocabulary) {
      count = draw.topK();
      ids = scratch.tokens(count);
      top(z, from, vocabulary, count, ids);
      Arrays.sort(ids, 0, count);
      p = scratch.scores(count);
      for (int i = 0; i < count; i++) {
        p[i] = z[from + ids[i]];
      }
      kernels.exponentials(p, 0, count, largest, draw.temperature(), p);
    } else {
      p = scratch.row(vocabulary);
      kernels.exponentials(z, from, vocabulary, largest, draw.temperature(), p);
    }
    if (draw.topP() < 1) {
      double total = total(p, count, scratch);
      if (ids == null) {
        // What is not above this adds up to half of what the nucleus leaves out, at most.
        double least = (1 - draw.topP()) / 2 * total / count;
        ids = scratch.tokens(count);
        count = kernels.allAbove(p, 0, count, Math.nextDown((float) least), ids);
        gather(p, ids, count);
      }
      count = keepNucleus(p, ids, count, draw.topP() * total, scratch);
    }
    if (draw.minP() > 0) {
      float bound = Math.nextDown(draw.minP());
      if (ids == null) {
        ids = scratch.tokens(count);
        count = kernels.allAbove(p, 0, count, bound, ids);
        gather(p, ids, count);
      } else {
        count = keepAbove(p, ids, count, bound);
      }
    }
    double u = Philox.uniform(draw.seed(), draw.position(), scratch.counter);
    int chosen = invert(p, count, u, scratch);
    return ids == null ? chosen : ids[chosen];
  }

  /** Fills {@code z} with the logits as they are chosen from; returns the largest. */
  private float change(
      Draw draw,
      float[] logits,
      int at,
      int vocabulary,
      boolean holds,
      float[] z,
      Scratch scratch) {
    System.arraycopy(logits, at, z, 0, vocabulary);
    TokenBias bias = draw.bias();
    if (bias != null) {
      add(bias, holds ? draw.length() - draw.promptLength() : bias.least(), z, vocabulary);
    }
    penalize(draw, z, scratch.marks(vocabulary));
    long[] mask = draw.mask();
    if (mask != null) {
      leave(mask, z, vocabulary);
    }
    return kernels.largest(z, 0, vocabulary);
  }

  /** Makes all tokens impossible that are not in {@code mask}. */
  private static void leave(long[] mask, float[] z, int vocabulary) {
    for (int word = 0; word * 64 < vocabulary; word++) {
      long bits = mask[word];
      int from = word * 64;
      int to = Math.min(vocabulary, from + 64);
      if (bits == 0) {
        Arrays.fill(z, from, to, Float.NEGATIVE_INFINITY);
      } else if (bits != -1) {
        for (int i = from; i < to; i++) {
          if ((bits >>> i & 1) == 0) {
            z[i] = Float.NEGATIVE_INFINITY;
          }
        }
      }
    }
  }

  private static void gather(float[] p, int[] ids, int count) {
    for (int i = 0; i < count; i++) {
      p[i] = p[ids[i]];
    }
  }

  private static int keepAbove(float[] p, int[] ids, int count, float bound) {
    int kept = 0;
    for (int i = 0; i < count; i++) {
      if (p[i] > bound) {
        p[kept] = p[i];
        ids[kept++] = ids[i];
      }
    }
    return kept;
  }

  private static void add(TokenBias bias, int generated, float[] z, int vocabulary) {
    for (int i = 0; i < bias.tokens().length; i++) {
      z[bias.tokens()[i]] += bias.values()[i];
    }
    if (generated < bias.least()) {
      for (int token : bias.held()) {
        if (token >= 0 && token < vocabulary) {
          z[token] = Float.NEGATIVE_INFINITY;
        }
      }
    }
  }

  private static void penalize(Draw draw, float[] z, int[] marks) {
    int[] tokens = draw.tokens();
    if (draw.repetition() != 1) {
      for (int i = 0; i < draw.length(); i++) {
        int token = tokens[i];
        if (marks[token]++ == 0) {
          z[token] = z[token] < 0 ? z[token] * draw.repetition() : z[token] / draw.repetition();
        }
      }
      clear(marks, tokens, 0, draw.length());
    }
    if (draw.presence() != 0 || draw.frequency() != 0) {
      for (int i = draw.promptLength(); i < draw.length(); i++) {
        marks[tokens[i]]++;
      }
      for (int i = draw.promptLength(); i < draw.length(); i++) {
        int token = tokens[i];
        if (marks[token] > 0) {
          z[token] -= draw.presence() + draw.frequency() * marks[token];
          marks[token] = 0;
        }
      }
    }
  }

  private static void clear(int[] marks, int[] tokens, int from, int to) {
    for (int i = from; i < to; i++) {
      marks[tokens[i]] = 0;
    }
  }

  /**
   * Keeps the fewest largest numbers that add up to {@code wanted}, lower ids first among equals,
   * and gives their count; at least one stays. Only the bucket in which the sum is reached is
   * sorted.
   */
  private static int keepNucleus(float[] p, int[] ids, int count, double wanted, Scratch scratch) {
    double[] sums = scratch.sums(BUCKETS);
    Arrays.fill(sums, 0, BUCKETS, 0);
    for (int i = 0; i < count; i++) {
      sums[bucket(p[i])] += p[i];
    }
    double sum = 0;
    int cut = BUCKETS - 1;
    while (cut > 0 && sum + sums[cut] < wanted) {
      sum += sums[cut];
      cut--;
    }
    int members = 0;
    for (int i = 0; i < count; i++) {
      if (bucket(p[i]) == cut) {
        members++;
      }
    }
    long[] order = scratch.order(members);
    int next = 0;
    for (int i = 0; i < count; i++) {
      if (bucket(p[i]) == cut) {
        order[next++] = ((long) -Float.floatToRawIntBits(p[i]) << 32) | i;
      }
    }
    Arrays.sort(order, 0, members);
    // The last of the bucket that stays, in its order.
    int stays = 0;
    while (stays < members - 1) {
      sum += p[(int) order[stays]];
      if (sum >= wanted) {
        break;
      }
      stays++;
    }
    long last = members == 0 ? Long.MAX_VALUE : order[stays];
    int kept = 0;
    for (int i = 0; i < count; i++) {
      int bucket = bucket(p[i]);
      long place = ((long) -Float.floatToRawIntBits(p[i]) << 32) | i;
      if (bucket > cut || (bucket == cut && place <= last)) {
        p[kept] = p[i];
        ids[kept++] = ids[i];
      }
    }
    return kept;
  }

  private static int bucket(float z) {
    return Float.floatToRawIntBits(z) >>> BUCKET_SHIFT;
  }

  private double total(float[] p, int count, Scratch scratch) {
    double total = 0;
    for (int from = 0; from < count; from += Kernels.RUN) {
      total += kernels.sum(p, from, Math.min(Kernels.RUN, count - from), scratch);
    }
    return total;
  }

  /**
   * The first index at which the running sum exceeds {@code u} of the total: the run of numbers in
   * which it does, by the runs' sums, and then the place in it.
   */
  private int invert(float[] p, int count, double u, Scratch scratch) {
    double wanted = u * total(p, count, scratch);
    double before = 0; // the run that begins at from
    double after = 0;
    int from = 0;
    for (int next = 0; next < count && !(after > wanted); next += Kernels.RUN) {
      float run = kernels.sum(p, next, Math.min(Kernels.RUN, count - next), scratch);
      if (run > 0) {
        from = next;
        before = after;
        after += run;
      }
    }
    double sum = before;
    int last = from;
    for (int i = from; i < Math.min(count, from + Kernels.RUN); i++) {
      if (p[i] > 0) {
        last = i;
        sum += p[i];
        if (sum > wanted) {
          return i;
        }
      }
    }
    return last;
  }

  /**
   * Fills {@code heap} with the indices of the {@code n} largest of {@code count}, descending,
   * lower index first among equals.
   */
  private void top(float[] a, int at, int count, int n, int[] heap) {
    if (n == 0) {
      return;
    }
    int size = 0;
    while (size < n) {
      heap[size] = size;
      up(heap, size++, a, at);
    }
    int next = kernels.above(a, at, n, count, a[at + heap[0]]);
    while (next < count) {
      heap[0] = next;
      down(heap, size, a, at);
      next = kernels.above(a, at, next + 1, count, a[at + heap[0]]);
    }
    while (size > 1) {
      size--;
      int worst = heap[0];
      heap[0] = heap[size];
      heap[size] = worst;
      down(heap, size, a, at);
    }
  }

  private static boolean worse(int i, int j, float[] a, int at) {
    float x = a[at + i];
    float y = a[at + j];
    return x < y || (x == y && i > j);
  }

  private static void up(int[] heap, int from, float[] a, int at) {
    int child = from;
    while (child > 0) {
      int parent = (child - 1) / 2;
      if (!worse(heap[child], heap[parent], a, at)) {
        return;
      }
      swap(heap, child, parent);
      child = parent;
    }
  }

  private static void down(int[] heap, int size, float[] a, int at) {
    int parent = 0;
    while (true) {
      int child = 2 * parent + 1;
      if (child >= size) {
        return;
      }
      if (child + 1 < size && worse(heap[child + 1], heap[child], a, at)) {
        child++;
      }
      if (!worse(heap[child], heap[parent], a, at)) {
        return;
      }
      swap(heap, child, parent);
      parent = child;
    }
  }

  private static void swap(int[] heap, int i, int j) {
    int kept = heap[i];
    heap[i] = heap[j];
    heap[j] = kept;
  }
}
