package dev.wardrobe.client.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.v1.Choices;
import dev.wardrobe.v1.Constraint;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.JsonKind;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;

final class ConstraintOptionsTest {
  private static GenerateRequest request(String... words) throws IOException {
    ConstraintOptions options = new ConstraintOptions();
    new CommandLine(CommandLine.Model.CommandSpec.forAnnotatedObject(options)).parseArgs(words);
    GenerateRequest.Builder request = GenerateRequest.newBuilder();
    options.in(request);
    return request.build();
  }

  private static GenerateRequest with(Constraint.Builder constraint) {
    return GenerateRequest.newBuilder().setConstraint(constraint).build();
  }

  @Test
  void in_eachKind(@TempDir Path folder) throws Exception {
    Path file = Files.writeString(folder.resolve("schema.json"), "{\"type\":\"null\"}");
    assertThat(request()).isEqualTo(GenerateRequest.getDefaultInstance());
    assertThat(request("--json-object", "--compact"))
        .isEqualTo(
            with(Constraint.newBuilder().setJson(JsonKind.JSON_KIND_OBJECT).setCompact(true)));
    assertThat(request("--json-schema", file.toString(), "--closed-objects"))
        .isEqualTo(
            with(
                Constraint.newBuilder()
                    .setJsonSchema("{\"type\":\"null\"}")
                    .setClosedObjects(true)));
    assertThat(request("--regex", "a|b")).isEqualTo(with(Constraint.newBuilder().setRegex("a|b")));
    assertThat(request("--choice", "yes", "--choice", "no"))
        .isEqualTo(
            with(
                Constraint.newBuilder()
                    .setChoice(Choices.newBuilder().addTexts("yes").addTexts("no"))));
  }

  @Test
  void in_schemaThatIsNoText_saysWhichFile(@TempDir Path folder) throws Exception {
    Path binary = Files.write(folder.resolve("binary"), new byte[] {(byte) 0xff, (byte) 0xfe});
    for (Path file : new Path[] {folder.resolve("absent"), folder, binary}) {
      assertThatThrownBy(() -> request("--json-schema", file.toString()))
          .isInstanceOf(IOException.class)
          .hasMessageContainingAll("--json-schema", "expected a file", file.toString());
    }
  }

  @Test
  void in_twoKinds_isRefused() {
    assertThatThrownBy(() -> request("--json-object", "--regex", "a"))
        .isInstanceOf(CommandLine.MutuallyExclusiveArgsException.class);
  }
}
