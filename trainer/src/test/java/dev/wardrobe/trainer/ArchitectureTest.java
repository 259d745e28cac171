package dev.wardrobe.trainer;

import static com.tngtech.archunit.base.DescribedPredicate.describe;
import static com.tngtech.archunit.core.domain.JavaClass.Predicates.resideInAPackage;
import static com.tngtech.archunit.lang.conditions.ArchConditions.be;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static org.assertj.core.api.Assertions.assertThat;

import com.tngtech.archunit.base.DescribedPredicate;
import com.tngtech.archunit.core.domain.JavaClass;
import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.core.importer.ImportOption;
import com.tngtech.archunit.lang.ArchRule;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** The rules that keep the trainer's packages in layers. */
final class ArchitectureTest {
  private static final String ROOT = "dev.wardrobe.trainer";

  /** Lowest first: a package may use itself, what stands before it, and the server. */
  private static final List<String> LAYERS =
      List.of("data", "backward", "optim", "plan", "checkpoint", "report", "loop");

  private static final JavaClasses CLASSES =
      new ClassFileImporter()
          .withImportOption(ImportOption.Predefined.DO_NOT_INCLUDE_TESTS)
          .withImportOption(ImportOption.Predefined.DO_NOT_INCLUDE_JARS)
          .importPackages(ROOT);

  static List<String> layers() {
    return LAYERS;
  }

  @ParameterizedTest
  @MethodSource("layers")
  void layer_usesOnlyTheLayersBelow(String layer) {
    List<String> above = LAYERS.subList(LAYERS.indexOf(layer) + 1, LAYERS.size());
    check(
        noClasses()
            .that(inLayer(layer))
            .should()
            .dependOnClassesThat(
                describe(
                    "lie in a layer above or in the root",
                    type -> root(type) || above.stream().anyMatch(l -> inLayer(l).test(type)))));
  }

  @Test
  void everyClass_liesInALayer() {
    check(
        noClasses()
            .should(
                be(
                    describe(
                        "outside the layers " + LAYERS,
                        type ->
                            !root(type)
                                && LAYERS.stream().noneMatch(l -> inLayer(l).test(type))))));
  }

  @Test
  void vectorApi_isLeftToTheServersBackend() {
    check(noClasses().should().dependOnClassesThat(resideInAPackage("jdk.incubator..")));
  }

  @Test
  void backends_areChosenInTheRootAlone() {
    check(
        noClasses()
            .that()
            .resideInAPackage(ROOT + ".*..")
            .should()
            .dependOnClassesThat(resideInAPackage("dev.wardrobe.compute.cpu..")));
  }

  @Test
  void names_sayWhatAThingIs() {
    check(
        noClasses()
            .should()
            .haveNameMatching(".*([.$]Abstract[^.]*|(Manager|Helper|Utils?|Impl)(\\$.*)?)"));
  }

  @Test
  void classes_areSeen() {
    assertThat(CLASSES.contain(TrainerExtension.class)).isTrue();
  }

  private static boolean root(JavaClass type) {
    return type.getPackageName().equals(ROOT);
  }

  private static DescribedPredicate<JavaClass> inLayer(String layer) {
    return resideInAPackage(ROOT + "." + layer + "..");
  }

  private static void check(ArchRule rule) {
    rule.allowEmptyShould(true).check(CLASSES);
  }
}
