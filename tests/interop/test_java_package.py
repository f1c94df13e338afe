"""The Java pages' programs run as they stand, on the artefact as it is published, in a project of their own."""

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from interop.pages import FIRST_LINES, HELLO, blocks, check_tool_loop, play
from interop.scenario import ROOT
from interop.toolchain import need_programs, ran

# Where nothing is cached, Maven loads its plugins and the dependencies.
pytestmark = pytest.mark.timeout(900)

PACKAGE = ROOT / "client_stubs" / "java"
README = PACKAGE / "README.md"
PAGE = ROOT / "docs" / "clients" / "java.md"
# Not where the scenarios' runner is built: that one knows by its sources alone whether it is up to date.
TARGET = ROOT / ".cache" / "java" / "target"

POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>com.example</groupId>
  <artifactId>use</artifactId>
  <version>1</version>
  <properties>
    <maven.compiler.release>17</maven.compiler.release>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>
  </properties>
  <dependencies>{dependency}</dependencies>
  <build><plugins>
    <plugin><artifactId>maven-compiler-plugin</artifactId><version>{compiler}</version></plugin>
    <plugin><artifactId>maven-resources-plugin</artifactId><version>{resources}</version></plugin>
    <plugin><groupId>org.codehaus.mojo</groupId><artifactId>exec-maven-plugin</artifactId><version>3.5.1</version></plugin>
  </plugins></build>
</project>
"""

# What Maven has loaded for this user is a repository to load from, so that only what is missing comes from afar.
SETTINGS = """\
<settings>
  <localRepository>{folder}/local</localRepository>
  <profiles><profile>
    <id>use</id>
    <repositories>
      <repository><id>built</id><url>file://{folder}/built</url></repository>
      <repository><id>loaded</id><url>file://{loaded}</url></repository>
    </repositories>
    <pluginRepositories>
      <pluginRepository><id>loaded</id><url>file://{loaded}</url></pluginRepository>
    </pluginRepositories>
  </profile></profiles>
  <activeProfiles><activeProfile>use</activeProfile></activeProfiles>
</settings>
"""

# What the page's fragments may take for granted.
FRAGMENT = """\
import io.grpc.TlsChannelCredentials;
import io.warmline.Client;
import io.warmline.Session;
import io.warmline.WarmlineException;
import io.warmline.v1.Item;
import io.warmline.v1.ListModelsRequest;
import io.warmline.v1.SessionServiceGrpc;
import io.warmline.v1.TurnEvent;
import io.warmline.v1.UpstreamError;
import java.io.File;
import java.time.Duration;
import java.util.List;

class Fragment{number} {{
  void run({given}) throws Exception {{
{body}
  }}
}}
"""


@pytest.fixture(scope="module", autouse=True)
def _needs_java() -> None:
    need_programs("java", "mvn")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has the published artefact as its one dependency, and a local repository of its own."""
    folder = tmp_path_factory.mktemp("maven")
    built = f"built::file://{folder}/built"
    maven("package", "deploy:deploy", "-DskipTests", f"-DaltDeploymentRepository={built}")
    (dependency,) = blocks(README, "xml")
    versions = {name: plugin_version(f"maven-{name}-plugin") for name in ("compiler", "resources")}
    (folder / "pom.xml").write_text(POM.format(dependency=dependency, **versions))
    loaded = Path.home() / ".m2" / "repository"
    (folder / "settings.xml").write_text(SETTINGS.format(folder=folder, loaded=loaded))
    (folder / "src" / "main" / "java").mkdir(parents=True)
    return folder


def maven(*words: str) -> None:
    """Runs Maven on the client."""
    ran("mvn", "--batch-mode", "--quiet", f"-DbuildDirectory={TARGET}", *words, cwd=PACKAGE)


def plugin_version(name: str) -> str:
    """That of a plugin in the client's own build."""
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    found = ElementTree.parse(PACKAGE / "pom.xml").find(f".//m:plugin[m:artifactId='{name}']/m:version", space)
    assert found is not None
    return str(found.text)


def command() -> str:
    """How the README runs its program."""
    (found,) = blocks(README, "sh")
    return found.strip().replace("mvn ", "mvn --batch-mode --settings settings.xml ")


def program(name: str, folder: Path) -> Callable[[str], str]:
    """Builds and runs code as the folder's class of that name."""

    def run(code: str) -> str:
        (folder / "src" / "main" / "java" / f"{name}.java").write_text(code)
        printed = ran("sh", "-c", command().replace("Hello", name), cwd=folder)
        # Maven of some versions colours even nothing.
        return re.sub("\x1b\\[[0-9;]*m", "", printed)

    return run


async def test_quick_start_prints_the_answer_and_how_it_came(clean: Path) -> None:
    (code,) = blocks(README, "java")

    printed, _ = await play(code, HELLO, program("Hello", clean))

    assert re.fullmatch(FIRST_LINES, printed)


async def test_tool_loop_answers_the_call_under_one_turn(clean: Path) -> None:
    await check_tool_loop(blocks(PAGE, "java")[0], program("Tools", clean))


def test_every_fragment_of_the_page_compiles(clean: Path) -> None:
    fragments = [block for block in blocks(PAGE, "java") if not block.startswith("import ")]
    for number, body in enumerate(fragments):
        given = "Session session, List<Item> conversation" + ("" if "Client client =" in body else ", Client client")
        made = FRAGMENT.format(number=number, given=given, body=body)
        (clean / "src" / "main" / "java" / f"Fragment{number}.java").write_text(made)

    assert len(fragments) > 3
    ran("mvn", "--batch-mode", "--quiet", "--settings", "settings.xml", "compile", cwd=clean)


def test_every_error_says_what_to_do_about_it() -> None:
    source = (PACKAGE / "src" / "main" / "java" / "io" / "warmline" / "WarmlineException.java").read_text()
    declared = set(re.findall(r"public static (?:final )?class (\w+) ", source))

    assert {name for name in declared if f"`{name}`" not in PAGE.read_text()} == {
        "Conflict",
        "NotFound",
        "Precondition",
    }


def test_artefact_comes_with_sources_and_documentation_and_without_the_runner(clean: Path) -> None:
    (jar,) = clean.glob("built/io/warmline/warmline/*/warmline-?.?.?.jar")
    beside = {path.name.removeprefix(jar.stem) for path in jar.parent.glob("*.jar")}
    listed = ran("jar", "tf", jar, cwd=clean).split()
    packages = {str(Path(name).parent) for name in listed if name.endswith(".class")}

    assert beside == {".jar", "-sources.jar", "-javadoc.jar"}
    assert packages == {"io/warmline", "io/warmline/v1"}
    assert not list(clean.glob("local/io/opentelemetry/**/*.jar"))


def test_java_client_passes_its_own_tests() -> None:
    maven("test")
