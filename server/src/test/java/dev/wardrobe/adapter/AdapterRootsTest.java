package dev.wardrobe.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What clients can reach by a path, and what not. */
final class AdapterRootsTest {
  @TempDir Path temp;

  private Path root;
  private Path outside;
  private AdapterRoots roots;

  @BeforeEach
  void layOut() throws Exception {
    root = Files.createDirectories(temp.resolve("root"));
    outside = Files.createDirectories(temp.resolve("outside"));
    write(outside.resolve("secret"), "secret");
    Files.createDirectories(root.resolve("a/deep"));
    write(root.resolve("a/file"), "in a");
    write(root.resolve("a/deep/file"), "deep");
    roots = AdapterRoots.of(List.of(root));
  }

  private static void write(Path file, String text) throws IOException {
    Files.writeString(file, text);
  }

  private String read(String path, String file) throws AdapterException {
    try (Arena arena = Arena.ofConfined();
        AdapterFiles.OpenFile open = roots.find(path).open(file)) {
      return new String(
          open.read(1000, arena).bytes().toArray(ValueLayout.JAVA_BYTE), StandardCharsets.UTF_8);
    }
  }

  private static void refuses(Reason reason, ThrowingCallable call) {
    assertThatThrownBy(call)
        .isInstanceOfSatisfying(
            AdapterException.class,
            e -> assertThat(e.reason()).as(e.getMessage()).isEqualTo(reason));
  }

  @Test
  void find_underARoot() throws Exception {
    assertThat(read("a", "file")).isEqualTo("in a");
    assertThat(read("a/deep", "file")).isEqualTo("deep");
    refuses(Reason.NOT_FOUND, () -> roots.find("b"));
    refuses(Reason.NOT_FOUND, () -> roots.find("a/file"));
    refuses(Reason.NOT_FOUND, () -> roots.find("a/file/more"));
    refuses(Reason.INVALID, () -> read("a", "nothing"));
    refuses(Reason.INVALID, () -> read("a", "deep"));
  }

  @Test
  void find_inTheFirstRootThatHasIt() throws Exception {
    Path second = Files.createDirectories(temp.resolve("second"));
    Files.createDirectories(second.resolve("a"));
    Files.createDirectories(second.resolve("b"));
    write(second.resolve("a/file"), "second a");
    write(second.resolve("b/file"), "second b");
    roots = AdapterRoots.of(List.of(root, second));
    assertThat(read("a", "file")).isEqualTo("in a");
    assertThat(read("b", "file")).isEqualTo("second b");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "..",
        "../outside",
        "a/../../outside",
        "/",
        "/etc",
        ".",
        "a/.",
        "",
        "a//deep",
        "a/"
      })
  void find_neverUpwards(String path) {
    refuses(Reason.REFUSED_PATH, () -> roots.find(path));
  }

  @Test
  void find_linkOutOfTheRoot() throws Exception {
    Files.createSymbolicLink(root.resolve("link"), outside);
    refuses(Reason.REFUSED_PATH, () -> roots.find("link"));
    Files.createSymbolicLink(root.resolve("a/up"), Path.of("../.."));
    refuses(Reason.REFUSED_PATH, () -> roots.find("a/up/outside"));
    refuses(Reason.REFUSED_PATH, () -> roots.find("a/up"));
    Files.createSymbolicLink(root.resolve("a/out"), outside.resolve("secret"));
    refuses(Reason.REFUSED_PATH, () -> read("a", "out"));
    Files.createSymbolicLink(root.resolve("loop"), Path.of("loop"));
    refuses(Reason.NOT_FOUND, () -> roots.find("loop"));
  }

  @Test
  void find_siblingWhoseNameBeginsAlike() throws Exception {
    Path sibling = Files.createDirectories(temp.resolve("root2"));
    write(sibling.resolve("file"), "sibling");
    Files.createSymbolicLink(root.resolve("link"), sibling);
    refuses(Reason.REFUSED_PATH, () -> roots.find("link"));
  }

  @Test
  void find_linksWithinTheRootAreFollowed() throws Exception {
    Files.createSymbolicLink(root.resolve("alias"), Path.of("a/deep"));
    assertThat(read("alias", "file")).isEqualTo("deep");
    Files.createSymbolicLink(root.resolve("a/deep/other"), Path.of("../file"));
    assertThat(read("a/deep", "other")).isEqualTo("in a");
  }

  @Test
  void open_directoryThatBecameALink() throws Exception {
    AdapterDirectory found = roots.find("a");
    Files.move(root.resolve("a"), root.resolve("moved"));
    write(outside.resolve("file"), "outside");
    Files.createSymbolicLink(root.resolve("a"), outside);
    refuses(Reason.REFUSED_PATH, () -> found.open("file").close());
  }

  @Test
  void find_rootThatIsItselfALink() throws Exception {
    Path alias = Files.createSymbolicLink(temp.resolve("alias"), root);
    roots = AdapterRoots.of(List.of(alias));
    assertThat(read("a", "file")).isEqualTo("in a");
  }

  @Test
  void open_limit() throws Exception {
    try (Arena arena = Arena.ofConfined();
        AdapterFiles.OpenFile file = roots.find("a").open("file")) {
      refuses(Reason.TOO_LARGE, () -> file.read(3, arena));
    }
  }

  @Test
  void open_fileThatGrowsOrShrinksWhileItIsRead() throws Exception {
    try (Arena arena = Arena.ofConfined();
        AdapterFiles.OpenFile file = roots.find("a").open("file")) {
      write(root.resolve("a/file"), "much more than before");
      refuses(Reason.IO, () -> file.read(1000, arena));
    }
    try (Arena arena = Arena.ofConfined();
        AdapterFiles.OpenFile file = roots.find("a").open("file")) {
      write(root.resolve("a/file"), "");
      refuses(Reason.IO, () -> file.read(1000, arena));
    }
  }

  @Test
  void of_rootThatIsNotThere() throws Exception {
    refuses(Reason.IO, () -> AdapterRoots.of(List.of(temp.resolve("nothing"))));
    refuses(Reason.IO, () -> AdapterRoots.of(List.of(root.resolve("a/file"))));
  }
}
