package dev.wardrobe.compute.cpu;

import static dev.wardrobe.compute.cpu.Assembler.Register.R10;
import static dev.wardrobe.compute.cpu.Assembler.Register.R11;
import static dev.wardrobe.compute.cpu.Assembler.Register.R13;
import static dev.wardrobe.compute.cpu.Assembler.Register.R14;
import static dev.wardrobe.compute.cpu.Assembler.Register.R15;
import static dev.wardrobe.compute.cpu.Assembler.Register.R8;
import static dev.wardrobe.compute.cpu.Assembler.Register.R9;
import static dev.wardrobe.compute.cpu.Assembler.Register.RAX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RBX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RCX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RDI;
import static dev.wardrobe.compute.cpu.Assembler.Register.RDX;
import static dev.wardrobe.compute.cpu.Assembler.Register.RSI;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.HexFormat;
import java.util.function.Consumer;
import org.junit.jupiter.api.Test;

/** The bytes are those that the GNU assembler writes, with offsets and numbers of 32 bits. */
final class AssemblerTest {
  @Test
  void instructions() {
    check("mov rax, [rdi+8]", "488b8708000000", a -> a.load(RAX, RDI, 8));
    check("mov r11, [r8+300]", "4d8b982c010000", a -> a.load(R11, R8, 300));
    check("mov [rdx+32], r9", "4c898a20000000", a -> a.store(R9, RDX, 32));
    check("mov rcx, 8", "48c7c108000000", a -> a.move(RCX, 8));
    check("mov r10, 70000", "49c7c270110100", a -> a.move(R10, 70000));
    check("add rsi, 128", "4881c680000000", a -> a.add(RSI, 128));
    check("add r9, -1", "4983c1ff", a -> a.add(R9, -1));
    check("prefetcht0 [rsi+8192]", "0f188e00200000", a -> a.prefetch(RSI, 8192));
    check("prefetcht0 [r8+64]", "410f188840000000", a -> a.prefetch(R8, 64));
    check("vmovups zmm31, [rax+0]", "62617c481038", a -> a.load(31, RAX, 0));
    check("vmovups zmm9, [r10+8128]", "62517c48104a7f", a -> a.load(9, R10, 8128));
    check("vmovups zmm16, [rcx+8192]", "62e17c48108100200000", a -> a.load(16, RCX, 8192));
    check("vmovups zmm1, [rcx+4]", "62f17c48108904000000", a -> a.load(1, RCX, 4));
    check("vmovups [rdx-8192], zmm8", "62717c48114280", a -> a.store(8, RDX, -8192));
    check("vmovups [r11+64], zmm30", "62417c48117301", a -> a.store(30, R11, 64));
    check(
        "vbroadcastss zmm29, dword ptr [r8+508]", "62427d4818687f", a -> a.broadcast(29, R8, 508));
    check(
        "vbroadcastss zmm3, dword ptr [rax+512]",
        "62f27d48189800020000",
        a -> a.broadcast(3, RAX, 512));
    check(
        "vbroadcastss zmm31, dword ptr [r8+r11*4+8]",
        "62027d48187c9802",
        a -> a.broadcast(31, R8, R11, 4, 8));
    check(
        "vbroadcastss zmm5, dword ptr [r8+rbx*2-512]",
        "62d27d48186c5880",
        a -> a.broadcast(5, R8, RBX, 2, -512));
    check(
        "vbroadcastss zmm17, dword ptr [rsi+r15+508]",
        "62a27d48184c3e7f",
        a -> a.broadcast(17, RSI, R15, 1, 508));
    check("vmovups zmm29{k2}, [rax+64]", "62617c4a106801", a -> a.load(2, 29, RAX, 64));
    check("vmovups zmm24{k4}, [r9+192]", "62417c4c104103", a -> a.load(4, 24, R9, 192));
    check("push r13", "4155", a -> a.push(R13));
    check("pop r14", "415e", a -> a.pop(R14));
    check("vpmovzxbd zmm22, [rsi+16]", "62e27d48317601", a -> a.loadBytes(22, RSI, 16));
    check("vpmovzxwd zmm27, [r9+32]", "62427d48335901", a -> a.loadWords(27, R9, 32));
    check("vmovaps zmm23, zmm6", "62e17c4828fe", a -> a.move(23, 6));
    check("vpxord zmm17, zmm17, zmm17", "62a17540efc9", a -> a.zero(17));
    check("vaddps zmm1, zmm17, zmm30", "6291744058ce", a -> a.add(1, 17, 30));
    check("vmulps zmm24, zmm8, zmm16", "62213c4859c0", a -> a.multiply(24, 8, 16));
    check("vfmadd231ps zmm12, zmm28, zmm5", "62721d40b8e5", a -> a.fma(12, 28, 5));
    check("vfmadd231ps zmm28, zmm20, [rdx+64]", "62625d40b86201", a -> a.fma(28, 20, RDX, 64));
    check("vpmuludq zmm3, zmm17, zmm29", "6291f540f4dd", a -> a.multiplyWide(3, 17, 29));
    check("vpxord zmm20, zmm4, zmm31", "62815d48efe7", a -> a.xor(20, 4, 31));
    check("vpcmpltud k3, zmm30, zmm2", "62f30d401eda01", a -> a.below(3, 30, 2));
    check("vpsrlq zmm9, zmm18, 32", "62b1b54873d220", a -> a.shiftRightWide(9, 18, 32));
    check("vsubps zmm3, zmm17, zmm29", "629174405cdd", a -> a.subtract(3, 17, 29));
    check("vmaxps zmm20, zmm4, zmm31", "62815c485fe7", a -> a.max(20, 4, 31));
    check("vminps zmm1, zmm30, zmm2", "62f10c405dca", a -> a.min(1, 30, 2));
    check("vscalefps zmm9, zmm18, zmm27", "62126d402ccb", a -> a.scale(9, 18, 27));
    check("vdivps zmm8, zmm21, zmm3", "627154405ec3", a -> a.divide(8, 21, 3));
    check("vfmadd213ps zmm12, zmm28, zmm5", "62721d40a8e5", a -> a.fmaOf(12, 28, 5));
    check("vpermps zmm27, zmm15, zmm31", "6202054816df", a -> a.permute(27, 15, 31));
    check("vpermi2d zmm23, zmm14, zmm31", "62820d4876ff", a -> a.permute2(23, 14, 31));
    check("vptestmd k3, zmm22, zmm9", "62d24d4027d9", a -> a.test(3, 22, 9));
    check("vpblendmd zmm24{k2}, zmm7, zmm30", "6202454a64c6", a -> a.blend(24, 2, 7, 30));
    check("vpsrld zmm28, zmm25, 28", "62911d4072d11c", a -> a.shiftRight(28, 25, 28));
    check("vpsrlvd zmm9, zmm17, zmm30", "6212754045ce", a -> a.shiftRightEach(9, 17, 30));
    check("vpsrlvd zmm28, zmm3, zmm12", "6242654845e4", a -> a.shiftRightEach(28, 3, 12));
    check("vpslld zmm8, zmm31, 16", "62913d4872f710", a -> a.shiftLeft(8, 31, 16));
    check("mov r9, rsi", "4989f1", a -> a.move(R9, RSI));
    check("mov rdx, r11", "4c89da", a -> a.move(RDX, R11));
    check("add rsi, rax", "4801c6", a -> a.add(RSI, RAX));
    check("add r8, r9", "4d01c8", a -> a.add(R8, R9));
    check("{vex3} kmovw k1, [rdi+112]", "c4e178908f70000000", a -> a.loadMask(1, RDI, 112));
    check("kmovw k7, [r10+2]", "c4c17890ba02000000", a -> a.loadMask(7, R10, 2));
    check("vmovups [r8]{k1}, zmm28", "62417c491120", a -> a.store(1, 28, R8, 0));
    check("vmovups [rcx+64]{k2}, zmm3", "62f17c4a115901", a -> a.store(2, 3, RCX, 64));
    check("vpermw zmm28, zmm26, zmm31", "6202ad408de7", a -> a.permuteWords(28, 26, 31));
    check("vpermw zmm4, zmm31, zmm4", "62f285408de4", a -> a.permuteWords(4, 31, 4));
    check("vpermt2w zmm28, zmm31, zmm26", "620285407de2", a -> a.permuteWords2(28, 31, 26));
    check("vpermt2w zmm3, zmm7, zmm12", "62d2c5487ddc", a -> a.permuteWords2(3, 7, 12));
    check("vdpbf16ps zmm23, zmm28, zmm29", "62821e4052fd", a -> a.dot(23, 28, 29));
    check("vdpbf16ps zmm0, zmm9, zmm17", "62b2364852c1", a -> a.dot(0, 9, 17));
    check("vcvtne2ps2bf16 zmm4, zmm1, zmm0", "62f2774872e0", a -> a.round(4, 0, 1));
    check("vcvtne2ps2bf16 zmm20, zmm31, zmm9", "62c2074072e1", a -> a.round(20, 9, 31));
    check("vpsrlw zmm28, zmm26, 12", "62911d4071d20c", a -> a.shiftRightWords(28, 26, 12));
    check("vpsrlw zmm5, zmm3, 4", "62f1554871d304", a -> a.shiftRightWords(5, 3, 4));
    check("vpaddd zmm3, zmm17, zmm29", "62917540fedd", a -> a.addInts(3, 17, 29));
    check("vpaddd zmm26, zmm9, zmm4", "62613548fed4", a -> a.addInts(26, 9, 4));
    check("vcmpunordps k1, zmm27, zmm27", "62912440c2cb03", a -> a.unordered(1, 27, 27));
    check("vcmpunordps k5, zmm3, zmm18", "62b16448c2ea03", a -> a.unordered(5, 3, 18));
    check("imul r8, [rdi+8]", "4c0faf8708000000", a -> a.multiply(R8, RDI, 8));
    check("cmp r11, rax", "4939c3", a -> a.compare(R11, RAX));
    check("push rbx", "53", a -> a.push(RBX));
    check("pop rbx", "5b", a -> a.pop(RBX));
    check("vpandd zmm26, zmm9, zmm31", "62013548dbd7", a -> a.and(26, 9, 31));
    check("vzeroupper; ret", "c5f877c3", a -> a.end());
  }

  @Test
  void jumps() {
    check(
        "1: add rax, -1; je 2f; jne 1b; 2:",
        "4883c0ff0f84060000000f85f0ffffff",
        a -> {
          int again = a.label();
          a.add(RAX, -1);
          int out = a.jumpIfZero();
          a.jumpIfNotZero(again);
          a.land(out);
        });
  }

  @Test
  void jumps_forward() {
    check(
        "jb 1f; vzeroupper; ret; 1:",
        "0f8204000000c5f877c3",
        a -> {
          int below = a.jumpIfBelow();
          a.end();
          a.land(below);
        });
  }

  @Test
  void registers_beyondTheLast() {
    assertThatThrownBy(() -> new Assembler().zero(32))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("vector register: expected 0 to 31, got 32");
  }

  private static void check(String instruction, String bytes, Consumer<Assembler> written) {
    Assembler assembler = new Assembler();
    written.accept(assembler);
    assertThat(HexFormat.of().formatHex(assembler.code())).as(instruction).isEqualTo(bytes);
  }
}
