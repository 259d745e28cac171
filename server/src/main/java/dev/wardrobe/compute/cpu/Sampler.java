package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Draw;
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
   * they are not finite, see {@link #problem}.
   */
  boolean sample(Draw draw, float[] logits, int at, int vocabulary, Scratch scratch) {
    Draw.Outcome outcome = draw.outcome();
    outcome.set(-1, Float.NaN);
    float max = largest(logits, at, vocabulary);
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

  /** What {@link #sample} found wrong with a row. */
  static String problem(float[] logits, int at, int vocabulary) {
    for (int i = 0; i < vocabulary; i++) {
      float logit = logits[at + i];
      if (Float.isNaN(logit) || logit == Float.POSITIVE_INFINITY) {
        return "the logit of token %d is %s".formatted(i, logit);
      }
    }
    return "no token has a finite logit";
  }

  private static float logprob(float logit, float max, double logSum) {
    return (float) ((double) logit - max - logSum);
  }

  /** The largest value; NaN if there is one. */
  private static float largest(float[] a, int at, int count) {
    float max = Float.NEGATIVE_INFINITY;
    for (int i = 0; i < count; i++) {
      max = Math.max(max, a[at + i]);
    }
    return max;
  }

  private int draw(Draw draw, float[] logits, int at, int vocabulary, float max, Scratch scratch) {
    boolean penalized = draw.repetition() != 1 || draw.presence() != 0 || draw.frequency() != 0;
    if (!penalized && draw.temperature() == 0) {
      return argmax(logits, at, vocabulary, max);
    }
    float[] z = scratch.row(vocabulary);
    System.arraycopy(logits, at, z, 0, vocabulary);
    float largest = max;
    if (penalized) {
      penalize(draw, z, scratch.marks(vocabulary));
      largest = largest(z, 0, vocabulary);
      if (!Float.isFinite(largest)) {
        return -1;
      }
    }
    if (draw.temperature() == 0) {
      return argmax(z, 0, vocabulary, largest);
    }
    int kept = draw.topK() > 0 && draw.topK() < vocabulary ? draw.topK() : 0;
    int[] keptTokens = scratch.tokens(kept);
    top(z, 0, vocabulary, kept, keptTokens);
    // From here on z holds probabilities relative to the largest one's.
    kernels.exponentials(z, 0, vocabulary, largest, draw.temperature(), z);
    if (kept > 0) {
      float[] values = scratch.scores(kept);
      for (int i = 0; i < kept; i++) {
        values[i] = z[keptTokens[i]];
      }
      Arrays.fill(z, 0, vocabulary, 0);
      for (int i = 0; i < kept; i++) {
        z[keptTokens[i]] = values[i];
      }
    }
    if (draw.topP() < 1) {
      keepNucleus(z, vocabulary, draw.topP(), scratch);
    }
    if (draw.minP() > 0) {
      for (int i = 0; i < vocabulary; i++) {
        if (z[i] < draw.minP()) {
          z[i] = 0;
        }
      }
    }
    return invert(z, vocabulary, Philox.uniform(draw.seed(), draw.position()));
  }

  private static int argmax(float[] a, int at, int count, float max) {
    int i = 0;
    while (i < count - 1 && a[at + i] != max) {
      i++;
    }
    return i;
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
   * Zeroes all but the fewest largest numbers that add up to {@code share} of the total, lower ids
   * first among equals; at least one stays. Only the bucket in which the sum is reached is sorted.
   */
  private static void keepNucleus(float[] z, int count, float share, Scratch scratch) {
    double[] sums = scratch.sums(BUCKETS);
    Arrays.fill(sums, 0, BUCKETS, 0);
    double total = 0;
    for (int i = 0; i < count; i++) {
      sums[bucket(z[i])] += z[i];
      total += z[i];
    }
    double wanted = share * total;
    double sum = 0;
    int cut = BUCKETS - 1;
    while (cut > 0 && sum + sums[cut] < wanted) {
      sum += sums[cut];
      cut--;
    }
    int members = 0;
    for (int i = 0; i < count; i++) {
      if (bucket(z[i]) == cut) {
        members++;
      }
    }
    long[] order = scratch.order(members);
    int next = 0;
    for (int i = 0; i < count; i++) {
      if (bucket(z[i]) == cut) {
        order[next++] = ((long) -Float.floatToRawIntBits(z[i]) << 32) | i;
      }
    }
    Arrays.sort(order, 0, members);
    boolean reached = false;
    for (int i = 0; i < members; i++) {
      int token = (int) order[i];
      if (reached) {
        z[token] = 0;
      } else {
        sum += z[token];
        reached = sum >= wanted;
      }
    }
    for (int i = 0; i < count; i++) {
      if (bucket(z[i]) < cut) {
        z[i] = 0;
      }
    }
  }

  private static int bucket(float z) {
    return Float.floatToRawIntBits(z) >>> BUCKET_SHIFT;
  }

  /** The first index at which the running sum exceeds {@code u} of the total. */
  private static int invert(float[] z, int count, double u) {
    double total = 0;
    for (int i = 0; i < count; i++) {
      total += z[i];
    }
    double wanted = u * total;
    double sum = 0;
    int last = 0;
    for (int i = 0; i < count; i++) {
      if (z[i] > 0) {
        last = i;
        sum += z[i];
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
  private static void top(float[] a, int at, int count, int n, int[] heap) {
    if (n == 0) {
      return;
    }
    int size = 0;
    for (int i = 0; i < count; i++) {
      if (size < n) {
        heap[size++] = i;
        up(heap, size - 1, a, at);
      } else if (a[at + i] > a[at + heap[0]]) {
        heap[0] = i;
        down(heap, size, a, at);
      }
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
