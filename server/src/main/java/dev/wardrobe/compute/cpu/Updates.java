package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.UpdateRule.BLOCK;

import dev.wardrobe.compute.UpdateRule;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.Arrays;

/**
 * An optimizer's rule applied block by block: no block's result depends on another's, so that
 * neither threads nor the pages that state lies in change a bit.
 */
final class Updates {
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final float[] parameter;
  private final float[] gradient;
  private final int from;
  private final int count;
  private final MemorySegment state;
  private final Kind kind;
  private final int blockBytes;

  /** What a rule does to one block. */
  private interface Kind {
    /**
     * @param p first element in the parameter and the gradient
     * @param n elements, at most {@value UpdateRule#BLOCK}
     * @param at the block's record in the state
     * @param block room for a block's state, as arrays
     */
    void run(int p, int n, long at, Block block);
  }

  /** A block's state as arrays, where loops over it are vectors. */
  private static final class Block {
    final float[] m = new float[BLOCK];
    final float[] v = new float[BLOCK];
    final float[] steps = new float[BLOCK];
    final byte[] codes = new byte[BLOCK];
  }

  Updates(
      UpdateRule rule,
      float[] parameter,
      float[] gradient,
      int from,
      int count,
      MemorySegment state) {
    this.parameter = parameter;
    this.gradient = gradient;
    this.from = from;
    this.count = count;
    this.state = state;
    blockBytes = rule.blockBytes();
    kind =
        switch (rule) {
          case UpdateRule.AdamW adamW -> new AdamW(adamW);
          case UpdateRule.Lion lion -> new Lion(lion);
          case UpdateRule.Sgd sgd -> new Sgd(sgd);
        };
  }

  int blocks() {
    return Math.ceilDiv(count, BLOCK);
  }

  /** Updates blocks {@code first} to {@code end} (exclusive). */
  void run(int first, int end) {
    Block block = new Block();
    for (int i = first; i < end; i++) {
      int n = Math.min(BLOCK, count - i * BLOCK);
      kind.run(from + i * BLOCK, n, (long) i * blockBytes, block);
    }
  }

  private final class AdamW implements Kind {
    private final boolean eightBit;
    private final float keep;
    private final float beta1;
    private final float rest1;
    private final float beta2;
    private final float rest2;
    private final float root;
    private final float epsilon;
    private final float rate;

    AdamW(UpdateRule.AdamW rule) {
      eightBit = rule.eightBit();
      keep = (float) (1 - rule.rate() * rule.decay());
      beta1 = (float) rule.beta1();
      rest1 = (float) (1 - rule.beta1());
      beta2 = (float) rule.beta2();
      rest2 = (float) (1 - rule.beta2());
      root = (float) Math.sqrt(1 - StrictMath.pow(rule.beta2(), (double) rule.step()));
      epsilon = (float) rule.epsilon();
      rate = (float) (rule.rate() / (1 - StrictMath.pow(rule.beta1(), (double) rule.step())));
    }

    @Override
    public void run(int p, int n, long at, Block block) {
      if (eightBit) {
        long codes = at + 2 * Float.BYTES;
        decode(DynamicCodes.SIGNED, at, codes, n, block.m, block.codes);
        decode(DynamicCodes.UNSIGNED, at + Float.BYTES, codes + BLOCK, n, block.v, block.codes);
        update(p, n, block.m, block.v, block.steps);
        encode(DynamicCodes.SIGNED, block.m, n, at, codes, block);
        encode(DynamicCodes.UNSIGNED, block.v, n, at + Float.BYTES, codes + BLOCK, block);
      } else {
        load(at, n, block.m);
        load(at + Float.BYTES * BLOCK, n, block.v);
        update(p, n, block.m, block.v, block.steps);
        store(block.m, n, at);
        store(block.v, n, at + Float.BYTES * BLOCK);
      }
    }

    private void update(int p, int n, float[] m, float[] v, float[] steps) {
      for (int i = 0; i < n; i++) {
        m[i] = beta1 * m[i] + rest1 * gradient[p + i];
      }
      for (int i = 0; i < n; i++) {
        float g = gradient[p + i];
        v[i] = beta2 * v[i] + rest2 * g * g;
      }
      for (int i = 0; i < n; i++) {
        steps[i] = m[i] / ((float) Math.sqrt(v[i]) / root + epsilon);
      }
      for (int i = 0; i < n; i++) {
        parameter[p + i] = parameter[p + i] * keep - rate * steps[i];
      }
    }
  }

  private final class Lion implements Kind {
    private final boolean eightBit;
    private final float keep;
    private final float beta1;
    private final float rest1;
    private final float beta2;
    private final float rest2;
    private final float rate;

    Lion(UpdateRule.Lion rule) {
      eightBit = rule.eightBit();
      keep = (float) (1 - rule.rate() * rule.decay());
      beta1 = (float) rule.beta1();
      rest1 = (float) (1 - rule.beta1());
      beta2 = (float) rule.beta2();
      rest2 = (float) (1 - rule.beta2());
      rate = (float) rule.rate();
    }

    @Override
    public void run(int p, int n, long at, Block block) {
      if (eightBit) {
        decode(DynamicCodes.SIGNED, at, at + Float.BYTES, n, block.m, block.codes);
        update(p, n, block.m, block.steps);
        encode(DynamicCodes.SIGNED, block.m, n, at, at + Float.BYTES, block);
      } else {
        load(at, n, block.m);
        update(p, n, block.m, block.steps);
        store(block.m, n, at);
      }
    }

    private void update(int p, int n, float[] m, float[] signs) {
      for (int i = 0; i < n; i++) {
        signs[i] = sign(beta1 * m[i] + rest1 * gradient[p + i]);
      }
      for (int i = 0; i < n; i++) {
        parameter[p + i] = parameter[p + i] * keep - rate * signs[i];
      }
      for (int i = 0; i < n; i++) {
        m[i] = beta2 * m[i] + rest2 * gradient[p + i];
      }
    }
  }

  /** 1, -1 or 0, by operations on bits, which loops over many become vectors of. */
  private static float sign(float x) {
    int bits = Float.floatToRawIntBits(x);
    int nonZero = ((bits & 0x7fffffff) + 0x7fffffff) >> 31;
    return Float.intBitsToFloat(((bits & 0x80000000) | 0x3f800000) & nonZero);
  }

  private final class Sgd implements Kind {
    private final float rate;
    private final float momentum;
    private final float decay;

    Sgd(UpdateRule.Sgd rule) {
      rate = (float) rule.rate();
      momentum = (float) rule.momentum();
      decay = (float) rule.decay();
    }

    @Override
    public void run(int p, int n, long at, Block block) {
      float[] m = block.m;
      if (blockBytes > 0) {
        load(at, n, m);
      } else {
        Arrays.fill(m, 0, n, 0);
      }
      for (int i = 0; i < n; i++) {
        m[i] = momentum * m[i] + (gradient[p + i] + decay * parameter[p + i]);
      }
      for (int i = 0; i < n; i++) {
        parameter[p + i] -= rate * m[i];
      }
      if (blockBytes > 0) {
        store(m, n, at);
      }
    }
  }

  private void load(long at, int n, float[] values) {
    MemorySegment.copy(state, FLOAT, at, values, 0, n);
  }

  private void store(float[] values, int n, long at) {
    MemorySegment.copy(values, 0, state, FLOAT, at, n);
  }

  private void decode(
      DynamicCodes map, long largestAt, long at, int n, float[] values, byte[] codes) {
    float largest = state.get(FLOAT, largestAt);
    MemorySegment.copy(state, ValueLayout.JAVA_BYTE, at, codes, 0, n);
    map.decode(codes, n, largest, values);
  }

  private void encode(
      DynamicCodes map, float[] values, int n, long largestAt, long at, Block block) {
    float largest = 0;
    for (int i = 0; i < n; i++) {
      largest = Math.max(largest, Math.abs(values[i]));
    }
    // Of nothing but zeros each is 0 · 1.
    float divisor = largest == 0 ? 1 : largest;
    for (int i = 0; i < n; i++) {
      block.steps[i] = values[i] / divisor;
    }
    map.encode(block.steps, n, block.codes);
    state.set(FLOAT, largestAt, largest);
    MemorySegment.copy(block.codes, 0, state, ValueLayout.JAVA_BYTE, at, n);
  }
}
