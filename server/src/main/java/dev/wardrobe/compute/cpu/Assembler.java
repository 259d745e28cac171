package dev.wardrobe.compute.cpu;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * Writes machine code for x86-64 with AVX-512: of its instructions those that this package's
 * generated code uses, always with 512-bit vectors.
 *
 * <p>Encodings are those of the Intel 64 and IA-32 Architectures Software Developer's Manual,
 * volume 2, section 2.7 (EVEX). Vector registers are numbers from 0 to 31.
 */
final class Assembler {
  /**
   * A general register. A function of the System V calling convention may overwrite them, but RBX
   * and R12 to R15, which it must {@link #push} before and {@link #pop} afterwards. R12 and R13 are
   * none to address memory by: they would be written otherwise.
   */
  enum Register {
    RAX(0),
    RCX(1),
    RDX(2),
    RBX(3),
    RSI(6),
    RDI(7),
    R8(8),
    R9(9),
    R10(10),
    R11(11),
    R12(12),
    R13(13),
    R14(14),
    R15(15);

    private final int number;

    Register(int number) {
      this.number = number;
    }
  }

  private static final int VECTOR_REGISTERS = 32;

  /** Vectors of 512 bits, in an EVEX prefix. */
  private static final int LENGTH = 2 << 5;

  // Opcode maps and mandatory prefixes, as an EVEX prefix holds them.
  private static final int MAP_0F = 1;
  private static final int MAP_0F38 = 2;
  private static final int MAP_0F3A = 3;
  private static final int NONE = 0;
  private static final int P66 = 1;
  private static final int PF3 = 2;
  private static final int PF2 = 3;

  /** In place of a prefix's highest bit: an operand's elements have twice the usual bits. */
  private static final int WIDE = 0x80;

  // What the second operand is: memory with an offset of 0, 8 or 32 bits, or a register.
  private static final int OFFSET0 = 0;
  private static final int OFFSET8 = 1;
  private static final int OFFSET32 = 2;
  private static final int REGISTER = 3;

  private final ByteBuffer code = ByteBuffer.allocate(1 << 16).order(ByteOrder.LITTLE_ENDIAN);
  private int mask;

  /** What was written. */
  byte[] code() {
    byte[] bytes = new byte[code.position()];
    code.get(0, bytes);
    return bytes;
  }

  /** The place of the next instruction, for a jump to it. */
  int label() {
    return code.position();
  }

  /** Keeps a register's value. */
  void push(Register register) {
    if (register.number >= 8) {
      put(0x41);
    }
    put(0x50 | (register.number & 7));
  }

  /** Takes back the value kept last. */
  void pop(Register register) {
    if (register.number >= 8) {
      put(0x41);
    }
    put(0x58 | (register.number & 7));
  }

  /** {@code to = memory[base + offset]}, 64 bits. */
  void load(Register to, Register base, int offset) {
    rex(to.number, base.number);
    put(0x8b);
    memory(to.number, base, offset);
  }

  /** {@code to = value}, of at most 31 bits. */
  void move(Register to, int value) {
    rex(0, to.number);
    put(0xc7, operands(REGISTER, 0, to.number));
    code.putInt(value);
  }

  /** {@code memory[base + offset] = from}, 64 bits. */
  void store(Register from, Register base, int offset) {
    rex(from.number, base.number);
    put(0x89);
    memory(from.number, base, offset);
  }

  /** {@code to += value}; sets the flags. */
  void add(Register to, int value) {
    rex(0, to.number);
    if (value == (byte) value) {
      put(0x83, operands(REGISTER, 0, to.number), value);
    } else {
      put(0x81, operands(REGISTER, 0, to.number));
      code.putInt(value);
    }
  }

  /** {@code to += from}; sets the flags. */
  void add(Register to, Register from) {
    rex(from.number, to.number);
    put(0x01, operands(REGISTER, from.number, to.number));
  }

  /** {@code to *= memory[base + offset]}, 64 bits. */
  void multiply(Register to, Register base, int offset) {
    rex(to.number, base.number);
    put(0x0f, 0xaf);
    memory(to.number, base, offset);
  }

  /** Sets the flags as if {@code b} were taken from {@code a}. */
  void compare(Register a, Register b) {
    rex(b.number, a.number);
    put(0x39, operands(REGISTER, b.number, a.number));
  }

  /** {@code to = from}. */
  void move(Register to, Register from) {
    rex(from.number, to.number);
    put(0x89, operands(REGISTER, from.number, to.number));
  }

  /** Goes to a label if the last addition did not give 0. */
  void jumpIfNotZero(int label) {
    put(0x0f, 0x85);
    code.putInt(label - (code.position() + 4));
  }

  /** Goes to where {@link #land} is called with the result, if the last addition gave 0. */
  int jumpIfZero() {
    put(0x0f, 0x84);
    code.putInt(0);
    return code.position();
  }

  /** The same if of what was compared the first is the lower one. */
  int jumpIfBelow() {
    put(0x0f, 0x82);
    code.putInt(0);
    return code.position();
  }

  /** The place that a jump goes to. */
  void land(int jump) {
    code.putInt(jump - 4, code.position() - jump);
  }

  /** Asks for the cache line at {@code base + offset}; never fails. */
  void prefetch(Register base, int offset) {
    if (base.number >= 8) {
      put(0x41);
    }
    put(0x0f, 0x18);
    memory(1, base, offset);
  }

  /** Returns to the caller, the vectors' upper parts cleared as other code expects it. */
  void end() {
    put(0xc5, 0xf8, 0x77);
    put(0xc3);
  }

  /** {@code to = memory[base + offset]}, 16 numbers. */
  void load(int to, Register base, int offset) {
    vector(MAP_0F, NONE, 0x10, to, 0, base, offset, 64);
  }

  /** {@code memory[base + offset] = from}, 16 numbers. */
  void store(int from, Register base, int offset) {
    vector(MAP_0F, NONE, 0x11, from, 0, base, offset, 64);
  }

  /** {@code mask = memory[base + offset]}, 16 bits; masks 1 to 7. */
  void loadMask(int mask, Register base, int offset) {
    put(0xc4, (~base.number >> 3 & 1) << 5 | 0xc0 | MAP_0F, 0x78, 0x90);
    memory(mask, base, offset);
  }

  /** {@code to = memory[base + offset]}, those of the 16 numbers that the mask names. */
  void load(int mask, int to, Register base, int offset) {
    this.mask = mask;
    load(to, base, offset);
    this.mask = 0;
  }

  /** {@code memory[base + offset] = from}, those of the 16 numbers that the mask names. */
  void store(int mask, int from, Register base, int offset) {
    this.mask = mask;
    store(from, base, offset);
    this.mask = 0;
  }

  /** {@code to = memory[base + offset]}, one float in all lanes. */
  void broadcast(int to, Register base, int offset) {
    vector(MAP_0F38, P66, 0x18, to, 0, base, offset, 4);
  }

  /**
   * {@code to = memory[base + index · scale + offset]}, one float in all lanes.
   *
   * @param scale 1, 2, 4 or 8
   * @param offset a multiple of 4 from -512 to 508
   */
  void broadcast(int to, Register base, Register index, int scale, int offset) {
    check(to, 0, 0);
    evex(MAP_0F38, P66, to, 0, base.number >> 3, index.number >> 3);
    put(0x18, operands(OFFSET8, to, 4));
    put(operands(Integer.numberOfTrailingZeros(scale), index.number, base.number), offset / 4);
  }

  /** {@code to = memory[base + offset]}, 16 bytes with zeros above them. */
  void loadBytes(int to, Register base, int offset) {
    vector(MAP_0F38, P66, 0x31, to, 0, base, offset, 16);
  }

  /** {@code to = memory[base + offset]}, 16 numbers of 16 bits with zeros above them. */
  void loadWords(int to, Register base, int offset) {
    vector(MAP_0F38, P66, 0x33, to, 0, base, offset, 32);
  }

  /** {@code to = from}. */
  void move(int to, int from) {
    vector(MAP_0F, NONE, 0x28, to, 0, from);
  }

  /** {@code to = 0}. */
  void zero(int to) {
    vector(MAP_0F, P66, 0xef, to, to, to);
  }

  /** {@code to = a ^ b}. */
  void xor(int to, int a, int b) {
    vector(MAP_0F, P66, 0xef, to, a, b);
  }

  /** {@code to = a & b}. */
  void and(int to, int a, int b) {
    vector(MAP_0F, P66, 0xdb, to, a, b);
  }

  /** {@code to = a + b}. */
  void add(int to, int a, int b) {
    vector(MAP_0F, NONE, 0x58, to, a, b);
  }

  /** {@code to = a - b}. */
  void subtract(int to, int a, int b) {
    vector(MAP_0F, NONE, 0x5c, to, a, b);
  }

  /** {@code to = max(a, b)}; b where either is no number. */
  void max(int to, int a, int b) {
    vector(MAP_0F, NONE, 0x5f, to, a, b);
  }

  /** {@code to = min(a, b)}; b where either is no number. */
  void min(int to, int a, int b) {
    vector(MAP_0F, NONE, 0x5d, to, a, b);
  }

  /** {@code to = a · 2^b}, b whole. */
  void scale(int to, int a, int b) {
    vector(MAP_0F38, P66, 0x2c, to, a, b);
  }

  /** {@code to = a / b}. */
  void divide(int to, int a, int b) {
    vector(MAP_0F, NONE, 0x5e, to, a, b);
  }

  /** {@code to = a · b}, lanes of 64 bits, of which the factors take the lower halves. */
  void multiplyWide(int to, int a, int b) {
    vector(MAP_0F, P66 | WIDE, 0xf4, to, a, b);
  }

  /** {@code to = from >>> bits}, lanes of 64 bits. */
  void shiftRightWide(int to, int from, int bits) {
    vector(MAP_0F, P66 | WIDE, 0x73, 2, to, from);
    put(bits);
  }

  /** {@code mask[lane] = a[lane] < b[lane]}, unsigned, with masks 1 to 7. */
  void below(int mask, int a, int b) {
    vector(MAP_0F3A, P66, 0x1e, mask, a, b);
    put(1);
  }

  /** {@code to = a + b}, lanes of 32 bits as integers. */
  void addInts(int to, int a, int b) {
    vector(MAP_0F, P66, 0xfe, to, a, b);
  }

  /** {@code mask[lane] = a[lane] or b[lane] is no number}, with masks 1 to 7. */
  void unordered(int mask, int a, int b) {
    vector(MAP_0F, NONE, 0xc2, mask, a, b);
    put(3);
  }

  /** {@code to = a · b}. */
  void multiply(int to, int a, int b) {
    vector(MAP_0F, NONE, 0x59, to, a, b);
  }

  /** {@code to = fma(a, b, to)}. */
  void fma(int to, int a, int b) {
    vector(MAP_0F38, P66, 0xb8, to, a, b);
  }

  /** {@code to = fma(to, a, b)}. */
  void fmaOf(int to, int a, int b) {
    vector(MAP_0F38, P66, 0xa8, to, a, b);
  }

  /** {@code to = fma(a, memory[base + offset], to)}. */
  void fma(int to, int a, Register base, int offset) {
    vector(MAP_0F38, P66, 0xb8, to, a, base, offset, 64);
  }

  /** {@code to[lane] = table[indices[lane] mod 16]}. */
  void permute(int to, int indices, int table) {
    vector(MAP_0F38, P66, 0x16, to, indices, table);
  }

  /** {@code to[lane] = table[indices[lane] mod 32]}, lanes of 16 bits. */
  void permuteWords(int to, int indices, int table) {
    vector(MAP_0F38, P66 | WIDE, 0x8d, to, indices, table);
  }

  /** {@code low[lane] = (low, high)[indices[lane] mod 64]}, lanes of 16 bits. */
  void permuteWords2(int low, int indices, int high) {
    vector(MAP_0F38, P66 | WIDE, 0x7d, low, indices, high);
  }

  /** {@code to[lane] += a[2·lane]·b[2·lane] + a[2·lane + 1]·b[2·lane + 1]}, bfloat16 factors. */
  void dot(int to, int a, int b) {
    vector(MAP_0F38, PF3, 0x52, to, a, b);
  }

  /** {@code to = (low, high)} in bfloat16, to nearest even. */
  void round(int to, int low, int high) {
    vector(MAP_0F38, PF2, 0x72, to, high, low);
  }

  /** {@code indices[lane] = (low, high)[indices[lane] mod 32]}. */
  void permute2(int indices, int low, int high) {
    vector(MAP_0F38, P66, 0x76, indices, low, high);
  }

  /** {@code mask[lane] = (a[lane] & b[lane]) != 0}, with masks 1 to 7. */
  void test(int mask, int a, int b) {
    vector(MAP_0F38, P66, 0x27, mask, a, b);
  }

  /** {@code to[lane] = mask[lane] ? set[lane] : clear[lane]}. */
  void blend(int to, int mask, int clear, int set) {
    this.mask = mask;
    vector(MAP_0F38, P66, 0x64, to, clear, set);
    this.mask = 0;
  }

  /** {@code to = from >>> bits}, lanes of 32 bits. */
  void shiftRight(int to, int from, int bits) {
    vector(MAP_0F, P66, 0x72, 2, to, from);
    put(bits);
  }

  /** {@code to[lane] = from[lane] >>> bits[lane]}, lanes of 32 bits. */
  void shiftRightEach(int to, int from, int bits) {
    vector(MAP_0F38, P66, 0x45, to, from, bits);
  }

  /** {@code to = from << bits}, lanes of 32 bits. */
  void shiftLeft(int to, int from, int bits) {
    vector(MAP_0F, P66, 0x72, 6, to, from);
    put(bits);
  }

  /** {@code to = from >>> bits}, lanes of 16 bits. */
  void shiftRightWords(int to, int from, int bits) {
    vector(MAP_0F, P66, 0x71, 2, to, from);
    put(bits);
  }

  private void put(int... bytes) {
    for (int b : bytes) {
      code.put((byte) b);
    }
  }

  /** Says that operands have 64 bits, and the fourth bits of two registers. */
  private void rex(int register, int base) {
    put(0x48 | (register >> 3) << 2 | base >> 3);
  }

  /** The byte that names two operands, of each the lowest three bits. */
  private static int operands(int mode, int register, int other) {
    return mode << 6 | (register & 7) << 3 | (other & 7);
  }

  /** Operands: a register and memory, always with an offset of 32 bits. */
  private void memory(int register, Register base, int offset) {
    put(operands(OFFSET32, register, base.number));
    code.putInt(offset);
  }

  private void vector(int map, int prefix, int opcode, int register, int second, int third) {
    check(register, second, third);
    evex(map, prefix, register, second, third >> 3 & 1, third >> 4);
    put(opcode, operands(REGISTER, register, third));
  }

  /**
   * @param unit what a short offset is counted in
   */
  private void vector(
      int map,
      int prefix,
      int opcode,
      int register,
      int second,
      Register base,
      int offset,
      int unit) {
    check(register, second, 0);
    evex(map, prefix, register, second, base.number >> 3, 0);
    put(opcode);
    if (offset == 0) {
      put(operands(OFFSET0, register, base.number));
    } else if (offset % unit == 0 && offset / unit == (byte) (offset / unit)) {
      put(operands(OFFSET8, register, base.number), offset / unit);
    } else {
      memory(register, base, offset);
    }
  }

  private static void check(int... registers) {
    for (int register : registers) {
      if (register < 0 || register >= VECTOR_REGISTERS) {
        throw new IllegalArgumentException(
            "vector register: expected 0 to %d, got %d".formatted(VECTOR_REGISTERS - 1, register));
      }
    }
  }

  /** The prefix. The bits that extend registers, and those of the second one, are inverted. */
  private void evex(int map, int prefix, int register, int second, int bit3, int bit4) {
    put(
        0x62,
        (~register >> 3 & 1) << 7
            | (~bit4 & 1) << 6
            | (~bit3 & 1) << 5
            | (~register >> 4 & 1) << 4
            | map,
        (~second & 15) << 3 | 1 << 2 | prefix,
        LENGTH | (~second >> 4 & 1) << 3 | mask);
  }
}
