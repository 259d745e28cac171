package dev.wardrobe.client.cli;

import dev.wardrobe.v1.Choices;
import dev.wardrobe.v1.Constraint;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.JsonKind;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Option;

/** What the answer must be; anything, if none is given. */
final class ConstraintOptions {
  @ArgGroup(exclusive = true)
  private @Nullable Kind kind;

  @Option(
      names = "--compact",
      description = "With --json-object and --json-schema: no blanks between a document's parts.")
  private boolean compact;

  @Option(
      names = "--closed-objects",
      description =
          "With --json-schema: objects have no properties but those that are named, where the"
              + " schema does not say.")
  private boolean closedObjects;

  /** One of several. */
  static final class Kind {
    @Option(names = "--json-object", description = "The answer is a JSON object.")
    private boolean jsonObject;

    @Option(
        names = "--json-schema",
        paramLabel = "FILE",
        description = "The answer is a JSON document that the schema in FILE allows.")
    private @Nullable Path jsonSchema;

    @Option(
        names = "--regex",
        paramLabel = "RE",
        description = "The answer matches this expression as a whole.")
    private @Nullable String regex;

    @Option(
        names = "--choice",
        paramLabel = "TEXT",
        description = "The answer is TEXT, or another one that is given so.")
    private List<String> choice = List.of();
  }

  private static String text(Path schema) throws IOException {
    try {
      return Files.readString(schema);
    } catch (IOException e) {
      throw new IOException(
          "--json-schema: expected a file of text in UTF-8 that can be read, got " + schema, e);
    }
  }

  /** Puts it into a request. */
  void in(GenerateRequest.Builder request) throws IOException {
    Constraint.Builder constraint =
        Constraint.newBuilder().setCompact(compact).setClosedObjects(closedObjects);
    if (kind != null) {
      if (kind.jsonObject) {
        constraint.setJson(JsonKind.JSON_KIND_OBJECT);
      } else if (kind.jsonSchema != null) {
        constraint.setJsonSchema(text(kind.jsonSchema));
      } else if (kind.regex != null) {
        constraint.setRegex(kind.regex);
      } else if (!kind.choice.isEmpty()) {
        constraint.setChoice(Choices.newBuilder().addAllTexts(kind.choice));
      }
    }
    if (kind != null || compact || closedObjects) {
      request.setConstraint(constraint);
    }
  }
}
